/*
 * Fuzzing the virtio balloon: programs of a driver, and the targets
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_pci.h"
#include "standard-headers/linux/virtio_ring.h"
#include "tests/qtest/libqos/virtio-balloon.h"
#include "fuzz.h"
#include "qos_fuzz.h"
#include "virtio_balloon_fuzz.h"

/* A program that does more is cut off: an input must take milliseconds */
#define OPS_MAX 200
#define PFNS_MAX 1024

static FuzzBalloon balloon;

/* Features by the bits of one byte; event index and the rest by another */
static uint64_t take_features(FuzzInput *in)
{
    static const uint8_t bits[16] = {
        VIRTIO_BALLOON_F_MUST_TELL_HOST, VIRTIO_BALLOON_F_STATS_VQ,
        VIRTIO_BALLOON_F_DEFLATE_ON_OOM, VIRTIO_BALLOON_F_FREE_PAGE_HINT,
        VIRTIO_BALLOON_F_PAGE_POISON, VIRTIO_BALLOON_F_REPORTING,
        VIRTIO_F_VERSION_1, VIRTIO_RING_F_INDIRECT_DESC,
        VIRTIO_RING_F_EVENT_IDX, VIRTIO_F_RING_PACKED, VIRTIO_F_RING_RESET,
        VIRTIO_F_IN_ORDER, VIRTIO_F_NOTIFY_ON_EMPTY, VIRTIO_F_ANY_LAYOUT,
        VIRTIO_F_ORDER_PLATFORM, VIRTIO_F_NOTIFICATION_DATA,
    };
    uint16_t wanted = fuzz_u16(in);
    uint64_t features = 0;

    for (int i = 0; i < 16; i++) {
        /* What a driver does is what a zero says, so that most inputs work */
        bool usual = i < 8;

        features |= (uint64_t)(usual ^ (wanted >> i & 1)) << bits[i];
    }
    return features;
}

/* Cut @size bytes at @addr into up to four segments */
static unsigned cut(uint64_t addr, uint32_t size, unsigned n, FuzzSeg *segs)
{
    uint32_t part = size / n;

    for (unsigned i = 0; i < n; i++) {
        segs[i] = (FuzzSeg) { .addr = addr + i * part, .len = part };
    }
    segs[n - 1].len = size - (n - 1) * part;
    return n;
}

static void add_list(FuzzBalloon *f, unsigned queue, const uint32_t *pfns,
                     size_t size, uint8_t how)
{
    FuzzSeg segs[4];
    unsigned n = cut(fuzz_put(f, pfns, size), size, 1 + (how >> 4 & 3), segs);

    fuzz_add(f, queue, segs, n, how & 8);
    if (!(how & 4)) {
        fuzz_kick(f, queue);
    }
}

/* Page numbers, of the pages that are given up and maybe of any others */
static unsigned take_pfns(FuzzBalloon *f, FuzzInput *in, uint32_t *pfns,
                          uint8_t how)
{
    unsigned first = fuzz_u16(in);
    unsigned step = how & 2 ? fuzz_u8(in) : 1;
    unsigned n = (how & 0x80 ? 4 : 1) * fuzz_u8(in);

    for (unsigned i = 0; i < n; i++) {
        uint64_t page = FUZZ_PAGES_START / FUZZ_PAGE_SIZE +
                        (first + i * step) % FUZZ_PAGES;

        pfns[i] = cpu_to_le32(page);
        fuzz_pages_name(f, page * FUZZ_PAGE_SIZE, 1);
    }
    if (how & 1) {
        uint32_t any = fuzz_u32(in);

        fuzz_pages_name(f, (uint64_t)any * FUZZ_PAGE_SIZE, 1);
        pfns[n++] = cpu_to_le32(any);
    }
    return n;
}

static void op_list(FuzzBalloon *f, FuzzInput *in, unsigned queue)
{
    uint32_t pfns[PFNS_MAX + 1];
    uint8_t how = fuzz_u8(in);
    size_t size = sizeof(pfns[0]) * take_pfns(f, in, pfns, how);

    if (how & 0x40) {
        size -= MIN(size, fuzz_u8(in) & 7);
    }
    add_list(f, queue, pfns, size, how);
}

/* Memory that is free: hints and reports, the id of hints before them */
static void op_free_memory(FuzzBalloon *f, FuzzInput *in, unsigned queue)
{
    uint8_t how = fuzz_u8(in);
    unsigned n = 0;
    FuzzSeg segs[FUZZ_SEGS];

    if (how & 0x40) {
        uint32_t id = how & 2 ? fuzz_u32(in) : fuzz_config_read(f, 8, 4);

        segs[n++] = (FuzzSeg) {
            .addr = fuzz_put(f, &id, sizeof(id)),
            .len = how & 1 ? fuzz_u8(in) & 7 : 4,
        };
    }
    for (unsigned i = 0; i < (how >> 4 & 3); i++) {
        uint64_t addr = FUZZ_PAGES_START + fuzz_u16(in) % FUZZ_PAGES *
                        FUZZ_PAGE_SIZE + (how & 0x80 ? fuzz_u8(in) * 16 : 0);
        uint32_t len = fuzz_u8(in) * FUZZ_PAGE_SIZE +
                       (how & 0x80 ? fuzz_u8(in) * 16 : 0);

        fuzz_pages_name(f, addr, len / FUZZ_PAGE_SIZE + 2);
        segs[n++] = (FuzzSeg) { addr, len, true };
    }
    if (n) {
        fuzz_add(f, queue, segs, n, how & 8);
    }
    if (!(how & 4)) {
        fuzz_kick(f, queue);
    }
}

static void op_stats(FuzzBalloon *f, FuzzInput *in)
{
    struct virtio_balloon_stat stats[32] = {};
    uint8_t how = fuzz_u8(in);
    unsigned n = how & 31;
    FuzzSeg seg;

    for (unsigned i = 0; i < n; i++) {
        stats[i].tag = cpu_to_le16(how & 0x80 ? fuzz_u16(in) : i);
        stats[i].val = cpu_to_le64(fuzz_u8(in));
    }
    seg.len = n * sizeof(stats[0]) + (how & 0x20 ? fuzz_u8(in) : 0);
    seg.addr = fuzz_put(f, stats, n * sizeof(stats[0]));
    seg.write = false;
    fuzz_add(f, VQ_STATS, &seg, 1, how & 8);
    if (!(how & 0x40)) {
        fuzz_kick(f, VQ_STATS);
    }
}

/* Where nothing good can come of having a request or a ring */
static uint64_t odd_address(FuzzBalloon *f, FuzzInput *in)
{
    uint8_t where = fuzz_u8(in);
    uint64_t offset = fuzz_u16(in);

    switch (where % 8) {
    case 0:
        return f->pci->bar.addr + offset % 0x4000;
    case 1:
        return 0xfffe0000 + offset;             /* ROM */
    case 2:
        return FUZZ_RAM_SIZE - offset % 64;
    case 3:
        return 0xe0000000 + offset;             /* nothing */
    case 4:
        return FUZZ_RINGS + offset;
    case 5:
        return FUZZ_ARENA + offset;
    case 6:
        return UINT64_MAX - offset;
    default:
        return (uint64_t)fuzz_u32(in) << (where >> 3);
    }
}

/* Segments anywhere, of any size */
static void op_odd_request(FuzzBalloon *f, FuzzInput *in)
{
    FuzzSeg segs[FUZZ_SEGS];
    uint8_t how = fuzz_u8(in);
    unsigned queue = fuzz_u8(in) % VQ_MAX;
    unsigned n = 1 + (how & 15);

    for (unsigned i = 0; i < n; i++) {
        segs[i].addr = odd_address(f, in);
        segs[i].len = fuzz_u32(in);
        segs[i].write = segs[i].len >> 31;
        segs[i].len &= how & 0x20 ? 0x7fffffff : 0xffff;
    }
    f->sane = false;
    fuzz_add(f, queue, segs, n, how & 0x10);
    fuzz_kick(f, queue);
}

/* Bytes of a ring */
static void op_odd_ring(FuzzBalloon *f, FuzzInput *in)
{
    uint16_t offset = fuzz_u16(in);
    uint8_t n = fuzz_u8(in) & 15;

    f->sane = false;
    while (n--) {
        f->ram[FUZZ_RINGS + offset++] = fuzz_u8(in);
    }
}

static void op_restart(FuzzBalloon *f, FuzzInput *in)
{
    fuzz_driver_reset(f);
    fuzz_pages_check(f);
    fuzz_pages_use_all(f);
    fuzz_driver_start(f, take_features(in));
}

/* The same queue anew, its ring maybe at an odd place */
static void op_reset_queue(FuzzBalloon *f, FuzzInput *in)
{
    uint8_t how = fuzz_u8(in);
    unsigned queue = (how & 0xf) % VQ_MAX;
    uint64_t ring[3];

    fuzz_driver_usual_ring(queue, ring);
    for (unsigned i = 0; i < 3; i++) {
        if (how & 0x10 << i) {
            ring[i] = odd_address(f, in);
            f->sane = false;
        }
    }
    fuzz_common_write(f, offsetof(struct virtio_pci_common_cfg, queue_select),
                      2, queue);
    fuzz_common_write(f, VIRTIO_PCI_COMMON_Q_RESET, 2, 1);
    if (!(how & 0x80)) {
        fuzz_driver_set_up_queue(f, queue, ring);
        /* It begins with what is in the ring */
        f->sane = false;
    }
}

static void op_register(FuzzBalloon *f, FuzzInput *in)
{
    uint8_t how = fuzz_u8(in);
    unsigned offset = fuzz_u8(in);
    unsigned size = 1 << (how & 3);
    uint32_t value = how & 0x80 ? fuzz_u32(in) : fuzz_u8(in);

    switch (how >> 4 & 3) {
    case 0:
    case 1:
        fuzz_config_write(f, offset % 20, size, value);
        break;
    case 2:
        fuzz_common_write(f, offset % 64, size, value);
        f->sane = false;
        break;
    default:
        fuzz_legacy_write(f, offset % 48, size, value);
        f->sane = false;
        break;
    }
}

/* Does the device remember no request of a list or a report? */
static bool is_idle(FuzzBalloon *f)
{
    return fuzz_is_idle(f, VQ_INFLATE) && fuzz_is_idle(f, VQ_DEFLATE) &&
           fuzz_is_idle(f, VQ_REPORT);
}

/* Use some pages again, which may have been given up, by the rules */
static void op_take_back(FuzzBalloon *f, FuzzInput *in)
{
    unsigned first = fuzz_u16(in) % FUZZ_PAGES;
    unsigned n = MIN(fuzz_u8(in), FUZZ_PAGES - first);
    uint32_t pfns[256];

    fuzz_run(2);
    if (!f->sane || !is_idle(f) || !n) {
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        pfns[i] = cpu_to_le32(FUZZ_PAGES_START / FUZZ_PAGE_SIZE + first + i);
    }
    add_list(f, VQ_DEFLATE, pfns, n * sizeof(pfns[0]), 0);
    fuzz_run(2);
    if (is_idle(f)) {
        fuzz_pages_use(f, first, n);
    }
}

static void op_clock(FuzzInput *in)
{
    static const int64_t jumps[] = {
        50 * SCALE_US, SCALE_MS, 2 * SCALE_MS, 60 * SCALE_MS, 200 * SCALE_MS,
        2000 * SCALE_MS,
    };
    static const int64_t drags[] = {
        0, 20 * SCALE_US, 200 * SCALE_US, SCALE_MS,
    };
    uint8_t how = fuzz_u8(in);

    fuzz_clock_jump(jumps[(how & 7) % G_N_ELEMENTS(jumps)]);
    fuzz_clock_drag(drags[how >> 3 & 3]);
    fuzz_run(1 + (how >> 5));
}

static void run_op(FuzzBalloon *f, FuzzInput *in)
{
    uint8_t op = fuzz_u8(in);

    switch (op % 16) {
    case 0:
    case 1:
        op_list(f, in, VQ_INFLATE);
        break;
    case 2:
        op_list(f, in, VQ_DEFLATE);
        break;
    case 3:
        op_take_back(f, in);
        break;
    case 4:
        op_free_memory(f, in, VQ_REPORT);
        break;
    case 5:
        op_free_memory(f, in, VQ_HINT);
        break;
    case 6:
        op_stats(f, in);
        break;
    case 7:
        op_register(f, in);
        break;
    case 8:
        op_odd_request(f, in);
        break;
    case 9:
        op_odd_ring(f, in);
        break;
    case 10:
        op_reset_queue(f, in);
        break;
    case 11:
        op_restart(f, in);
        break;
    case 12:
        fuzz_kick(f, op >> 4);
        break;
    case 13:
        op_clock(in);
        break;
    default:
        fuzz_host_op(f, in);
        break;
    }
}

static void fuzz_program(QTestState *qts, const unsigned char *data,
                         size_t size)
{
    FuzzBalloon *f = &balloon;
    FuzzInput in = { .data = data, .size = size };

    fuzz_driver_start(f, take_features(&in));
    for (int i = 0; i < OPS_MAX && in.size; i++) {
        run_op(f, &in);
    }
    fuzz_clock_drag(0);
    fuzz_run(2);
    fuzz_host_settle(f);
    /* One reset: it takes as long as all the rest */
    fuzz_driver_reset(f);
    fuzz_run(2);
    fuzz_pages_check(f);
    fuzz_pages_use_all(f);
}

/* QEMU reads this signal in its main loop; a hang is where that is not run */
static void let_libfuzzer_see_hangs(void)
{
    sigset_t alarm;

    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    g_assert(pthread_sigmask(SIG_UNBLOCK, &alarm, NULL) == 0);
}

static void pre_fuzz(QTestState *qts)
{
    QVirtioBalloon *interface;

    let_libfuzzer_see_hangs();
    qos_init_path(qts);
    interface = fuzz_qos_obj;
    fuzz_driver_init(&balloon, container_of(interface->vdev, QVirtioPCIDevice,
                                            vdev), qts);
    fuzz_driver_reset(&balloon);
    fuzz_pages_init(&balloon);
    fuzz_host_init(&balloon);
}

static void pre_fuzz_host(QTestState *qts)
{
    pre_fuzz(qts);
    balloon.host_ops = true;
}

static void *shared_memory(GString *cmd_line, void *arg)
{
    g_string_append(cmd_line, " -m 16 -object memory-backend-memfd,id=ram,"
                    "size=16M,share=on -machine memory-backend=ram ");
    return arg;
}

static void *private_memory(GString *cmd_line, void *arg)
{
    g_string_append(cmd_line, " -m 16 ");
    return arg;
}

#define EVERYTHING "free-page-hint=on,iothread=io,free-page-reporting=on," \
                   "must-tell-host=on,deflate-on-oom=on,packed=on"

static void add_target(const char *name, const char *description,
                       const char *device, void (*pre)(QTestState *),
                       void *(*before)(GString *, void *))
{
    fuzz_add_qos_target(&(FuzzTarget) {
        .name = name,
        .description = description,
        .pre_fuzz = pre,
        .fuzz = fuzz_program,
    }, "virtio-balloon", &(QOSGraphTestOptions) {
        .before = before,
        .edge = {
            .after_cmd_line = " -object iothread,id=io",
            .extra_device_opts = device,
        },
    });
}

static void register_targets(void)
{
    add_target("virtio-balloon-queues", "Requests, config, resets, stop",
               EVERYTHING ",ioeventfd=off", pre_fuzz, private_memory);
    add_target("virtio-balloon-shared", "The same, with shared memory",
               EVERYTHING ",ioeventfd=off", pre_fuzz, shared_memory);
    add_target("virtio-balloon-host", "The same, with migration, reset of the"
               " machine, saved and loaded state", EVERYTHING, pre_fuzz_host,
               private_memory);
}

fuzz_target_init(register_targets);
