/* overlay: after qemu_guest_free_page_hint */
/**
 * qemu_guest_free_bitmap_hint: have migration skip the free pages of a RAMBlock
 * @rb: the block
 * @bitmap: a bit for each of @n target pages from @first on, set where nobody
 *          needs the page; NULL: nobody needs any of them
 * @first: a multiple of BITS_PER_LONG
 * @n: what is past the end of the block is left out
 *
 * Each word of the bitmaps is looked at once, however the pages are scattered.
 * Like qemu_guest_free_page_hint(), it is for live migration, after the bitmap
 * was synchronised; it does nothing at other times.
 *
 * Returns: how many pages were to be sent and will not be.
 */
uint64_t qemu_guest_free_bitmap_hint(RAMBlock *rb, const unsigned long *bitmap,
                                     unsigned long first, unsigned long n);
