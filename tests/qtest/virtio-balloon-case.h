/*
 * Test cases of a virtio balloon: what they begin with, and what they share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_CASE_H
#define TESTS_VIRTIO_BALLOON_CASE_H

#include "qemu/timer.h"
#include "qemu/units.h"
#include "virtio-balloon-driver.h"
#include "virtio-balloon-monitor.h"

#define SECOND NANOSECONDS_PER_SECOND

/* Balloons; another property follows a comma */
#define PLAIN "virtio-balloon-pci"
#define REPORTING PLAIN ",free-page-reporting=on"
#define HINTING PLAIN ",free-page-hint=on,iothread=io0"
#define ALL_QUEUES HINTING ",free-page-reporting=on"
#define TELL PLAIN ",must-tell-host=on"
#define COORDINATED TELL ",coordinated-discards=on"
#define LEGACY ",disable-modern=on"
#define KICKED ",ioeventfd=off"

/* The machine of a test that asks for nothing else */
#define RAM (128 * MiB)
#define IOTHREAD "-object iothread,id=io0 "
#define MEMORY "-m 128 " IOTHREAD
/* ... with a backend: its type, without memory-backend-, and properties */
#define MEMORY_OF(backend)                                              \
    MEMORY "-machine pc,memory-backend=ram "                            \
    "-object memory-backend-" backend ",id=ram,size=128M"
#define SHARED MEMORY_OF("memfd,share=on")
#define HUGETLB(share)                                                  \
    MEMORY_OF("memfd,hugetlb=on,hugetlbsize=2M,share=" share)

/* Where the guest has pages to give, full of OLD: from a huge page on */
#define AREA (64 * MiB)
#define AREA_SIZE (8 * MiB)
#define HUGE (2 * MiB)

/* A test that needs a request half done tries so often until it has one */
#define ATTEMPTS 100

/* What there is of VFIO: see balloon_plug_vfio() and balloon_vfio */
typedef enum BalloonVfio {
    VFIO_NONE,
    VFIO_HOST,
    /* a device is assigned from the start */
    VFIO_ASSIGNED,
} BalloonVfio;

/* A test has a machine with a balloon whose driver has gone to DRIVER_OK */
typedef struct BalloonTest {
    /*
     * Every test holds for the balloon that QEMU 10.0 came with, except those
     * below improved/, where this one differs on purpose, and manage/, which
     * that one does not have.  After these the counters explain every byte.
     */
    const char *path;
    void (*run)(BalloonDriver *d);
    /* as for balloon_boot(); NULL for those of most tests, and MEMORY */
    const char *device;
    const char *options;
    /* what @run finds in its driver */
    const void *data;
    /* the device was reset, and @run is to start it */
    bool unstarted;
    /* skipped where there are no huge pages of 2 MiB for RAM */
    bool huge_pages;
    BalloonVfio vfio;
    /* its type; skipped where QEMU has none: old ones are dropped in time */
    const char *machine;
    /* boots machines, or none, as it likes, like all of a bare table */
    bool bare;
} BalloonTest;

/* Add tests below /virtio-balloon/@prefix, of that @device or PLAIN */
void balloon_add_tests(const char *prefix, const char *device,
                       const BalloonTest *tests, unsigned n);
/* ... each of which boots machines, or none, as it likes */
void balloon_add_bare_tests(const char *prefix, const char *device,
                            const BalloonTest *tests, unsigned n);

/* A program has the tests of all its files: main() calls each @add of them */
void balloon_register(void (*add)(void));
#define BALLOON_ADD(add)                                                \
    static void __attribute__((constructor)) register_##add(void)       \
    {                                                                   \
        balloon_register(add);                                          \
    }

/* ... or adds these, as above */
#define BALLOON_TESTS_BY(add_them, prefix, device, tests)               \
    static void add_##tests(void)                                       \
    {                                                                   \
        add_them(prefix, device, tests, ARRAY_SIZE(tests));             \
    }                                                                   \
    BALLOON_ADD(add_##tests)
#define BALLOON_TESTS(prefix, device, tests)                            \
    BALLOON_TESTS_BY(balloon_add_tests, prefix, device, tests)
#define BALLOON_BARE_TESTS(prefix, device, tests)                       \
    BALLOON_TESTS_BY(balloon_add_bare_tests, prefix, device, tests)

/*
 * Have qos-test run each of @tests on a balloon with these properties, in a
 * machine that it knows: their devices and options do not count
 */
void balloon_add_qos_tests(const BalloonTest *tests, unsigned n,
                           const char *properties);

/* The path of a file of this test, which is removed after it: $FILES/@name */
const char *balloon_file(const char *name);
/* How often that file says @what; never if there is none */
unsigned balloon_count_in_file(const char *name, const char *what);
/* How many lines QEMU logged there; none of them a sanitizer's own */
unsigned balloon_log_lines(void);

/* The machine of a bare test that is to begin as the others do */
void balloon_boot_and_start(BalloonDriver *d);

/* Start a driver that fills its free pages with @poison */
void balloon_start_poison(BalloonDriver *d, uint32_t poison);

/* Reset the machine; the next driver finds the device as after power-on */
void balloon_machine_reset(BalloonDriver *d);

/* As drivers may, which have all pages back then: clear DRIVER_OK ... */
void balloon_clear_driver_ok(BalloonDriver *d);
/* ... may not access memory any more ... */
void balloon_end_bus_master(BalloonDriver *d);
/* ... and not accept MUST_TELL_HOST any more, with the legacy interface */
void balloon_drop_tell(BalloonDriver *d);

/* Wait until what was given has gone, if that may be put off */
void balloon_settle(BalloonDriver *d);
/* An inflate request is served, and one to deflate */
void balloon_assert_serves(BalloonDriver *d);
/* And a target reaches the driver, whose size comes back */
void balloon_assert_resizes(BalloonDriver *d);
void balloon_assert_works(BalloonDriver *d);

/* Is it the balloon of QEMU 10.0, which serves a request in one go? */
bool balloon_is_stock(BalloonDriver *d);
/*
 * Call @attempt until it had something come in the middle of a request, which
 * it returns.  The device may be through with that before the test gets there,
 * if the host so likes; where it always is, it does not serve in slices.
 */
void balloon_come_between(BalloonDriver *d, bool (*attempt)(BalloonDriver *d));
/* A test whose data is such an attempt */
void balloon_test_come_between(BalloonDriver *d);

/*
 * A test whose data is how a balloon ends: it is empty, which is told once; the
 * target stays
 */
void balloon_test_end_is_told(BalloonDriver *d);

/* Reset the device; then the next driver's requests are served */
void balloon_assert_next_driver(BalloonDriver *d);

/* Give memory, as Linux does 1 MiB at a time; then no discard is put off */
void balloon_give(BalloonDriver *d, uint64_t addr, uint64_t size);
/* The guest writes memory that is its own, and nobody takes it */
void balloon_use(BalloonDriver *d, uint64_t addr, uint64_t size);
/* Wait until the host has got memory that is in the balloon */
void balloon_wait_gone(BalloonDriver *d, uint64_t addr, uint64_t size);

#endif
