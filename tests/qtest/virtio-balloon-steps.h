/*
 * Tests of a virtio balloon that begin alike, and steps that they take
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BALLOON_STEPS_H
#define TESTS_VIRTIO_BALLOON_STEPS_H

#include "qemu/units.h"
#include "virtio-balloon-driver.h"

/* The memory of a machine that a test does not ask anything else of ... */
#define BALLOON_RAM (128 * MiB)
/* ... with a backend: its type, without memory-backend-, and properties */
#define BALLOON_RAM_OF(backend)                                         \
    "-m 128 -machine pc,memory-backend=ram "                            \
    "-object memory-backend-" backend ",id=ram,size=128M "

#define BALLOON_VQ_HINT BALLOON_VQ_FIRST_OPTIONAL

/* What is tested with a balloon of its own, whose driver goes to DRIVER_OK */
typedef struct BalloonTest {
    /*
     * Below /virtio-balloon/.  Every test holds for the balloon that QEMU 10.0
     * came with, except those below improved/, where this one differs on
     * purpose.
     */
    const char *path;
    void (*run)(BalloonDriver *d);
    /* as for balloon_boot(), if they are not those of most tests */
    const char *device;
    const char *options;
    /* what @run finds in its driver */
    const void *data;
    /* the device was reset, and @run is to start it */
    bool unstarted;
} BalloonTest;

/* Add tests of that @device, with 128 MiB of memory and the iothread io0 */
void balloon_add_tests(const char *device, const BalloonTest *tests,
                       unsigned n);

/* An inflate request is served, and one to deflate */
void balloon_assert_serves(BalloonDriver *d);

/* Wait until the device asks for hints.  Returns: the command id */
uint32_t balloon_wait_asked(BalloonDriver *d);
/* Leave a buffer that is @size bytes of a command id; 4 are a whole one */
uint32_t balloon_post_id(BalloonDriver *d, uint32_t id, uint32_t size);
/* Send a command id */
void balloon_send_id(BalloonDriver *d, uint32_t id);

/* A name for a file that does not exist; the caller removes the file */
char *balloon_temp_name(const char *suffix);

/*
 * Have the saved state in @file say these @n bytes, so far behind the name of
 * @section
 */
void balloon_patch_state(const char *file, const char *section,
                         unsigned offset, const void *bytes, unsigned n);

/* How often a file says @what; never if there is no such file */
unsigned balloon_count_in_file(const char *path, const char *what);

#endif
