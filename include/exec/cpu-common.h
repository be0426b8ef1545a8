/* overlay: after ram_block_discard_guest_memfd_range */
/**
 * ram_block_discard_ranges: give ranges of a RAMBlock back to the host
 * @rb: the block
 * @iov: host addresses in @rb; each range begins and ends with a page of
 *       @rb->page_size
 * @n: how many ranges, at most IOV_MAX
 * @discarded: how many bytes the host got back is added to this
 * @calls: how many system calls it took is added to this
 *
 * What is discarded reads as zero, or, in a private mapping of a file that is
 * not the block's own, as what the file holds: such a file is never changed.
 * All else goes: the copy of a private mapping and the page of a file below it
 * that is the block's own, the page of a shared file, what guest_memfd holds.
 * A range that fails does not keep the others from being discarded.
 *
 * Returns: 0, or a negative errno of the first range that failed; -EACCES when
 * the file was opened for reading only.
 */
int ram_block_discard_ranges(RAMBlock *rb, const struct iovec *iov, size_t n,
                             uint64_t *discarded, uint64_t *calls);
/* overlay: new */
/*
 * Returns: for how many ranges, of a page each, the call before takes about a
 * millisecond while vCPUs run; at most IOV_MAX.
 */
size_t ram_block_discard_ranges_max(RAMBlock *rb);
/* overlay: new */
/*
 * Has a RAMBlock a file that nobody else can open: a memfd, or one made in a
 * folder?  Not if it was opened for reading: then it is a template.
 */
bool ram_block_owns_file(RAMBlock *rb);
/* overlay: new */
/**
 * ram_block_resident: which pages of a RAMBlock the host would have back
 * @rb: the block
 * @start: offset into it in bytes, a multiple of the host's page size
 * @length: in bytes, likewise
 * @resident: filled in, a byte for each page of qemu_real_host_page_size():
 *            its lowest bit is set when the page is in memory, or when the
 *            host does not say
 *
 * Of private memory that is what has a copy, maybe swapped out, whatever there
 * is of a file below it.  Of a file that is shared, or the block's own, it is
 * what is in memory of the file, and not what is swapped out.
 */
void ram_block_resident(RAMBlock *rb, uint64_t start, size_t length,
                        uint8_t *resident);
