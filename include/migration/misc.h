/* overlay: after qemu_guest_free_page_hint */
/**
 * qemu_guest_free_bitmap_hint: have migration skip the free pages of a RAMBlock
 * @rb: the block
 * @free: a bit for each target page of it, set where nobody needs the page; no
 *        bit is set past its end
 * @first: the target page to begin with, a multiple of BITS_PER_LONG
 * @n: how many to look at
 *
 * Each word of the bitmaps is looked at once, however the pages are scattered.
 * Like qemu_guest_free_page_hint(), it is for live migration, after the bitmap
 * was synchronised; it does nothing at other times.
 *
 * Returns: how many pages were to be sent and will not be.
 */
uint64_t qemu_guest_free_bitmap_hint(RAMBlock *rb, const unsigned long *free,
                                     unsigned long first, unsigned long n);
