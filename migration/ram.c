/* overlay: after qemu_guest_free_page_hint */
/*
 * Target pages @first to before @end, of one chunk, which @bitmap has from
 * @origin on.  bitmap_mutex is held
 */
static uint64_t ram_skip_in_chunk(RAMBlock *rb, const unsigned long *bitmap,
                                  unsigned long origin, unsigned long first,
                                  unsigned long end)
{
    unsigned long page = bitmap ? origin + find_next_bit(bitmap, end - origin,
                                                         first - origin) :
                                  first;
    uint64_t skipped = 0;

    if (page >= end) {
        return 0;
    }
    for (unsigned long i = BIT_WORD(page); i < BITS_TO_LONGS(end); i++) {
        unsigned long free = bitmap ? bitmap[i - BIT_WORD(origin)] : ~0ul;

        if (i == BIT_WORD(end)) {
            free &= BITMAP_LAST_WORD_MASK(end);
        }
        skipped += ctpopl(rb->bmap[i] & free);
        rb->bmap[i] &= ~free;
    }
    if (skipped) {
        /*
         * As if a page of the chunk were sent: otherwise the memory's own dirty
         * bitmap would bring those that are skipped back when it is asked next.
         */
        migration_clear_memory_region_dirty_bitmap(rb, page);
    }
    ram_state->migration_dirty_pages -= skipped;
    return skipped;
}
/* overlay: new */
/* bitmap_mutex is held */
static uint64_t ram_skip_bitmap(RAMBlock *rb, const unsigned long *bitmap,
                                unsigned long first, unsigned long n)
{
    unsigned long end = MIN(first + n, rb->used_length >> TARGET_PAGE_BITS);
    unsigned long origin = first;
    uint64_t skipped = 0;

    while (first < end) {
        unsigned long chunk_end =
            (first | ((1UL << rb->clear_bmap_shift) - 1)) + 1;

        chunk_end = MIN(chunk_end, end);
        skipped += ram_skip_in_chunk(rb, bitmap, origin, first,
                                     chunk_end);
        first = chunk_end;
    }
    return skipped;
}
/* overlay: new */
uint64_t qemu_guest_free_bitmap_hint(RAMBlock *rb,
                                     bool (*next)(void *opaque,
                                                  const unsigned long **bitmap,
                                                  unsigned long *first,
                                                  unsigned long *n),
                                     void *opaque)
{
    const unsigned long *bitmap;
    unsigned long first, n;
    uint64_t skipped = 0;

    if (!migration_is_running() || !rb->bmap) {
        return 0;
    }
    QEMU_LOCK_GUARD(&ram_state->bitmap_mutex);
    while (next(opaque, &bitmap, &first, &n)) {
        skipped += ram_skip_bitmap(rb, bitmap, first, n);
    }
    return skipped;
}
/* overlay: new */
bool migration_pins_ram(void)
{
    return migrate_rdma() && migration_is_running();
}
