/* overlay: after qemu_guest_free_page_hint */
/**
 * qemu_guest_free_bitmap_hint: have migration skip free pages of a RAMBlock
 * @rb: the block
 * @next: says which they are: @n target pages from @first, a multiple of
 *        BITS_PER_LONG, on; those set in @bitmap, which holds until the next
 *        call, or all if that is NULL; what is past the end of the block is
 *        left out.  Returns: false at the end
 * @opaque: of @next
 *
 * The bitmap's lock is taken once, for @next as well, and each word is looked
 * at once, however the pages are scattered.  Like qemu_guest_free_page_hint(),
 * it is for live migration, after the bitmap was synchronised; it does nothing
 * at other times.
 *
 * Returns: how many pages were to be sent and will not be.
 */
uint64_t qemu_guest_free_bitmap_hint(RAMBlock *rb,
                                     bool (*next)(void *opaque,
                                                  const unsigned long **bitmap,
                                                  unsigned long *first,
                                                  unsigned long *n),
                                     void *opaque);
/* overlay: new */
/*
 * Does migration read guest memory where it was when it was sent first?  A page
 * that is discarded, and comes back, would be elsewhere.
 */
bool migration_pins_ram(void);
