/*
 * Test cases of a virtio balloon: what they begin with, and what they share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "standard-headers/linux/virtio_config.h"
#include "virtio-balloon-case.h"
#include "virtio-balloon-host.h"

/* Where the files of the running test are */
static char *folder;

const char *balloon_file(const char *name)
{
    g_autofree char *path = g_build_filename(folder, name, NULL);

    return g_intern_string(path);
}

static void remove_files(void *unused)
{
    g_autoptr(GDir) files = g_dir_open(folder, 0, NULL);
    const char *name;

    while (files && (name = g_dir_read_name(files))) {
        unlink(balloon_file(name));
    }
    rmdir(folder);
}

static void files_begin(void)
{
    folder = g_dir_make_tmp("virtio-balloon-XXXXXX", NULL);
    g_assert_nonnull(folder);
    g_setenv("FILES", folder, true);
    qtest_add_abrt_handler(remove_files, &folder);
}

static void files_end(void)
{
    qtest_remove_abrt_handler(&folder);
    remove_files(NULL);
    g_clear_pointer(&folder, g_free);
}

unsigned balloon_count_in_file(const char *name, const char *what)
{
    g_autofree char *text = NULL;
    unsigned n = 0;

    if (g_file_get_contents(balloon_file(name), &text, NULL, NULL)) {
        for (char *at = text; (at = strstr(at, what)); at++) {
            n++;
        }
    }
    return n;
}

unsigned balloon_log_lines(void)
{
    return balloon_count_in_file("log", "\n") -
           balloon_count_in_file("log", "WARNING: ASan");
}

static bool has_counters(const BalloonTest *test)
{
    return strstr(test->path, "/improved/") || strstr(test->path, "/manage/");
}

static void boot(BalloonDriver *d, bool start)
{
    const void *data = d->data;

    balloon_boot(d, d->device, d->options);
    d->data = data;
    if (start) {
        balloon_start(d, BALLOON_ALL_FEATURES);
    }
    qtest_memset(d->qts, AREA, OLD, AREA_SIZE);
}

void balloon_boot_and_start(BalloonDriver *d)
{
    boot(d, true);
}

/* Why a test cannot be run, or NULL */
static const char *missing(const BalloonTest *test)
{
    if (test->machine && !qtest_has_machine(test->machine)) {
        return "this QEMU has no such machine type any more";
    }
    if (strstr(test->options, "-accel tcg") && !qtest_has_accel("tcg")) {
        return "this QEMU runs no guest";
    }
    if (strstr(test->device, "coordinated-discards") && !CAN_COORDINATE) {
        return "this QEMU lets no device have all discards of a guest";
    }
    if (test->huge_pages && !balloon_hugepages_take(RAM / HUGE)) {
        return "the host has no huge pages to spare";
    }
    return NULL;
}

static void run_test(const void *data)
{
    const BalloonTest *test = data;
    BalloonDriver d = {
        .device = test->device,
        .options = test->options,
        .data = test->data,
    };
    const char *reason = missing(test);

    if (reason) {
        g_test_skip(reason);
        return;
    }
    files_begin();
    if (test->vfio) {
        balloon_vfio_begin();
    }
    if (!test->bare) {
        boot(&d, !test->unstarted);
    }
    test->run(&d);
    if (d.vdev && has_counters(test)) {
        balloon_assert_sum(d.qts);
    }
    if (d.machine) {
        balloon_quit(&d);
    }
    if (test->vfio) {
        balloon_vfio_end();
    }
    files_end();
    balloon_hugepages_restore();
}

static void add_test(const char *prefix, const char *device,
                     BalloonTest test)
{
    g_autofree char *path = g_strconcat("/virtio-balloon/", prefix, test.path,
                                        NULL);
    g_autofree char *options = g_strconcat(
        test.options ?: MEMORY, test.machine ? " -machine " : "",
        test.machine ?: "",
        test.vfio == VFIO_ASSIGNED ? " " BALLOON_VFIO_DEVICE : "", NULL);

    test.path = g_intern_string(path);
    test.device = g_intern_string(test.device ?: device ?: PLAIN);
    test.options = g_intern_string(options);
    qtest_add_data_func_full(path, g_memdup2(&test, sizeof(test)), run_test,
                             g_free);
}

void balloon_add_tests(const char *prefix, const char *device,
                       const BalloonTest *tests, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        add_test(prefix, device, tests[i]);
    }
}

void balloon_add_bare_tests(const char *prefix, const char *device,
                            const BalloonTest *tests, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        BalloonTest test = tests[i];

        test.bare = true;
        add_test(prefix, device, test);
    }
}

void balloon_start_poison(BalloonDriver *d, uint32_t poison)
{
    balloon_negotiate(d, BALLOON_ALL_FEATURES);
    balloon_writel(d, BALLOON_CFG_POISON, poison);
    balloon_setup_queues(d);
    qvirtio_set_driver_ok(d->vdev);
}

void balloon_machine_reset(BalloonDriver *d)
{
    balloon_lose(d);
    qtest_system_reset(d->qts);
    balloon_find(d);
}

void balloon_clear_driver_ok(BalloonDriver *d)
{
    d->vdev->bus->set_status(d->vdev, balloon_status(d) &
                                      ~VIRTIO_CONFIG_S_DRIVER_OK);
}

void balloon_end_bus_master(BalloonDriver *d)
{
    balloon_set_bus_master(d, false);
}

void balloon_drop_tell(BalloonDriver *d)
{
    d->vdev->bus->set_features(d->vdev, d->vdev->features &
                               ~(1ull << VIRTIO_BALLOON_F_MUST_TELL_HOST));
}

void balloon_settle(BalloonDriver *d)
{
    if (d->vdev->features & 1ull << VIRTIO_BALLOON_F_MUST_TELL_HOST) {
        balloon_wait_discarded(d->qts);
    }
}

void balloon_assert_serves(BalloonDriver *d)
{
    uint64_t mem = balloon_dirty_pages(d, 4);

    balloon_inflate(d, mem + BALLOON_PAGE, 2 * BALLOON_PAGE);
    balloon_settle(d);
    balloon_assert_pages(d, mem, "x00x");
    balloon_deflate(d, mem + BALLOON_PAGE, 2 * BALLOON_PAGE);
    balloon_assert_well(d);
    guest_free(d->alloc, mem);
}

void balloon_assert_resizes(BalloonDriver *d)
{
    /* Another one each time */
    uint32_t pages = balloon_readl(d, BALLOON_CFG_NUM_PAGES) ==
                     RAM / 2 / BALLOON_PAGE ? RAM / 4 / BALLOON_PAGE :
                                              RAM / 2 / BALLOON_PAGE;

    balloon_set_target(d->qts, RAM - (uint64_t)pages * BALLOON_PAGE);
    balloon_wait_config_interrupt(d);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_NUM_PAGES), ==, pages);
    balloon_writel(d, BALLOON_CFG_ACTUAL, 2);
    g_assert_cmpint(balloon_query(d->qts), ==, RAM - 2 * BALLOON_PAGE);
    balloon_writel(d, BALLOON_CFG_ACTUAL, 0);
}

void balloon_assert_works(BalloonDriver *d)
{
    balloon_assert_resizes(d);
    balloon_assert_serves(d);
}

bool balloon_is_stock(BalloonDriver *d)
{
    return !balloon_info_has(d->qts, "counters");
}

void balloon_come_between(BalloonDriver *d, bool (*attempt)(BalloonDriver *d))
{
    bool stock = balloon_is_stock(d);
    bool between = false;

    for (int i = 0; i < (stock ? 1 : ATTEMPTS) && !between; i++) {
        between = attempt(d);
    }
    g_assert_true(between || stock);
}

void balloon_test_come_between(BalloonDriver *d)
{
    balloon_come_between(d, d->data);
}

void balloon_test_end_is_told(BalloonDriver *d)
{
    void (*end)(BalloonDriver *d) = d->data;
    int64_t target = RAM - 4 * MiB;
    int64_t change;

    balloon_set_target(d->qts, target);
    balloon_writel(d, BALLOON_CFG_ACTUAL, MiB / BALLOON_PAGE);
    g_assert_cmpint(balloon_next_change(d->qts), ==, RAM - MiB);
    qtest_clock_step(d->qts, 2 * SECOND);
    end(d);
    balloon_wait_for((change = balloon_next_change(d->qts)) != -1);
    g_assert_cmpint(change, ==, RAM);
    g_assert_cmpint(balloon_query(d->qts), ==, RAM);
    g_assert_cmpuint(balloon_target(d->qts), ==, target);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_NUM_PAGES), ==,
                    4 * MiB / BALLOON_PAGE);
    qtest_clock_step(d->qts, 2 * SECOND);
    g_assert_cmpint(balloon_next_change(d->qts), ==, -1);
}

void balloon_assert_next_driver(BalloonDriver *d)
{
    balloon_restart(d);
    balloon_assert_serves(d);
}

void balloon_give(BalloonDriver *d, uint64_t addr, uint64_t size)
{
    for (uint64_t at = 0; at < size; at += MiB) {
        balloon_inflate(d, addr + at, MIN(MiB, size - at));
    }
    balloon_wait_discarded(d->qts);
}

void balloon_use(BalloonDriver *d, uint64_t addr, uint64_t size)
{
    qtest_memset(d->qts, addr, NEW, size);
    balloon_assert_stays(d, addr, size, NEW);
}

void balloon_wait_gone(BalloonDriver *d, uint64_t addr, uint64_t size)
{
    balloon_wait_for(balloon_has_bytes(d, addr, size, 0));
}

static GSList *registered;

void balloon_register(void (*add)(void))
{
    registered = g_slist_append(registered, add);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (GSList *at = registered; at; at = at->next) {
        void (*add)(void) = at->data;

        add();
    }
    return g_test_run();
}
