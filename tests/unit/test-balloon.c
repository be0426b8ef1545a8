/*
 * The machine's balloon: commands with a provider that has all operations, one
 * that has only those of qemu_add_balloon_handler(), and none
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-machine.h"
#include "system/balloon.h"
#include "system/kvm.h"

/* The host's KVM, as system/balloon.c sees it */
bool kvm_allowed;
static bool sync_mmu;
/* As on a host that handed its guest to another QEMU by cpr-transfer */
static bool kvm_gone;

bool kvm_has_sync_mmu(void)
{
    g_assert_false(kvm_gone);
    return sync_mmu;
}

typedef struct Provider {
    uint64_t target;
    bool refuses;
    unsigned requests;
} Provider;

static void set_target(void *opaque, uint64_t target)
{
    ((Provider *)opaque)->target = target;
}

/* As a balloon has it that calls qemu_add_balloon_handler() */
static void plain_set_target(void *opaque, ram_addr_t target)
{
    ((Provider *)opaque)->target = target;
}

static void get_info(void *opaque, BalloonInfo *info)
{
    info->actual = 512 * MiB;
}

static void get_range(void *opaque, uint64_t *min, uint64_t *max)
{
    *min = 64 * MiB;
    *max = 1 * GiB;
}

static BalloonStatsInfo *get_stats(void *opaque)
{
    BalloonStatsInfo *info = g_new0(BalloonStatsInfo, 1);

    info->pending = ((Provider *)opaque)->requests;
    return info;
}

static bool request_stats(void *opaque, Error **errp)
{
    Provider *provider = opaque;

    provider->requests++;
    if (provider->refuses) {
        error_setg(errp, "no");
    }
    return !provider->refuses;
}

static const QEMUBalloonOps all_ops = {
    .set_target = set_target,
    .get_info = get_info,
    .get_range = get_range,
    .get_stats = get_stats,
    .request_stats = request_stats,
};

/* Assert that @err is set, with @class and @message, and free it */
static void assert_error(Error *err, ErrorClass class, const char *message)
{
    g_assert_nonnull(err);
    g_assert_cmpint(error_get_class(err), ==, class);
    g_assert_cmpstr(error_get_pretty(err), ==, message);
    error_free(err);
}

static void assert_refused(int64_t target, const char *message)
{
    Error *err = NULL;

    qmp_balloon(target, &err);
    assert_error(err, ERROR_CLASS_GENERIC_ERROR, message);
}

static void assert_actual(int64_t actual)
{
    g_autoptr(BalloonInfo) info = qmp_query_balloon(&error_abort);

    g_assert_cmpint(info->actual, ==, actual);
}

static void test_none(void)
{
    Error *err = NULL;

    g_assert_null(qmp_query_balloon(&err));
    assert_error(err, ERROR_CLASS_DEVICE_NOT_ACTIVE,
                 "No balloon device has been activated");
}

static void test_all_operations(void)
{
    Provider provider = { };
    g_autoptr(BalloonStatsInfo) stats = NULL;
    Error *err = NULL;

    g_assert_cmpint(qemu_add_balloon(&all_ops, &provider), ==, 0);
    qmp_balloon(128 * MiB, &error_abort);
    g_assert_cmpuint(provider.target, ==, 128 * MiB);
    assert_refused(1, "1 bytes is too small a target: the balloon's min-size is"
                   " 67108864 bytes, give at least that");
    g_assert_cmpuint(provider.target, ==, 128 * MiB);
    assert_actual(512 * MiB);
    qmp_request_balloon_stats(&error_abort);
    g_assert_cmpuint(provider.requests, ==, 1);
    stats = qmp_query_balloon_stats(&error_abort);
    g_assert_true(stats->pending);
    provider.refuses = true;
    qmp_request_balloon_stats(&err);
    assert_error(err, ERROR_CLASS_GENERIC_ERROR, "no");
    qemu_remove_balloon_handler(&provider);
}

/* A balloon that knows neither limits nor statistics, as of Hyper-V guests */
static void test_plain(void)
{
    Provider provider = { };
    Error *err = NULL;

    g_assert_cmpint(qemu_add_balloon_handler(plain_set_target, get_info,
                                             &provider), ==, 0);
    qmp_balloon(1, &error_abort);
    g_assert_cmpuint(provider.target, ==, 1);
    assert_refused(0, "Parameter 'value' expects a size");
    g_assert_cmpuint(provider.target, ==, 1);
    assert_actual(512 * MiB);
    g_assert_null(qmp_query_balloon_stats(&err));
    assert_error(err, ERROR_CLASS_GENERIC_ERROR,
                 "This machine's balloon has no statistics");
    err = NULL;
    qmp_request_balloon_stats(&err);
    assert_error(err, ERROR_CLASS_GENERIC_ERROR,
                 "This machine's balloon has no statistics");
    qemu_remove_balloon_handler(&provider);
}

/* What people are told of a target of 0: errors and hints go to stderr */
static void report_refusal(void)
{
    Error *err = NULL;

    qmp_balloon(0, &err);
    error_report_err(err);
}

static void test_hint_all_operations(void)
{
    Provider provider = { };

    if (g_test_subprocess()) {
        g_assert_cmpint(qemu_add_balloon(&all_ops, &provider), ==, 0);
        report_refusal();
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_passed();
    g_test_trap_assert_stderr("*The guest can be left with 64 MiB to 1 GiB.*");
}

/* It has no limits that could be told */
static void test_hint_plain(void)
{
    Provider provider = { };

    if (g_test_subprocess()) {
        g_assert_cmpint(qemu_add_balloon_handler(plain_set_target, get_info,
                                                 &provider), ==, 0);
        report_refusal();
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_passed();
    g_test_trap_assert_stderr("*Parameter 'value' expects a size*");
    g_test_trap_assert_stderr_unmatched("*The guest can be left*");
}

static void test_one_only(void)
{
    Provider first = { }, second = { };

    g_assert_cmpint(qemu_add_balloon(&all_ops, &first), ==, 0);
    g_assert_cmpint(qemu_add_balloon_handler(plain_set_target, get_info,
                                             &second), ==, -EBUSY);
    qemu_remove_balloon_handler(&second);
    qmp_balloon(128 * MiB, &error_abort);
    g_assert_cmpuint(first.target, ==, 128 * MiB);
    qemu_remove_balloon_handler(&first);
    test_none();
}

static void test_kvm(void)
{
    Provider provider = { };
    Error *err = NULL;

    kvm_allowed = true;
    g_assert_cmpint(qemu_add_balloon(&all_ops, &provider), ==, 0);
    qmp_balloon(128 * MiB, &err);
    assert_error(err, ERROR_CLASS_KVM_MISSING_CAP,
                 "This host's KVM does not follow changes of the memory map,"
                 " which a balloon needs");
    qemu_remove_balloon_handler(&provider);

    sync_mmu = true;
    g_assert_cmpint(qemu_add_balloon(&all_ops, &provider), ==, 0);
    qmp_balloon(128 * MiB, &error_abort);
    kvm_gone = true;
    qapi_free_BalloonInfo(qmp_query_balloon(&error_abort));
    kvm_allowed = sync_mmu = kvm_gone = false;
    qemu_remove_balloon_handler(&provider);
}

static void assert_text(const BalloonInfo *info, const char *expected)
{
    g_autoptr(GString) text = qemu_balloon_info_text(info);

    g_assert_cmpstr(text->str, ==, expected);
}

static void test_text(void)
{
    BalloonSkipped skipped = { .refused = 4 * KiB };
    BalloonCounters counters = {
        .discarded = 256 * MiB,
        .discard_calls = 256,
        .waiting = 2 * MiB,
        .skipped = &skipped,
    };
    BalloonHeld held = { .size = 8 * MiB };
    BalloonInfo info = { .actual = 512 * MiB };

    assert_text(&info, "");
    info.held = &held;
    assert_text(&info, "held, until the guest can have it: 8 MiB\n");
    held.error = (char *)"Cannot allocate memory";
    info.has_target = info.has_state = info.has_inhibited_by = true;
    info.target = 256 * MiB;
    info.state = BALLOON_STATE_STALLED;
    info.has_reporting = info.has_hinting = info.hinting = true;
    info.counters = &counters;
    assert_text(&info,
                "target: 256 MiB\n"
                "state: stalled\n"
                "inhibited by: pinned-memory\n"
                "held, until the guest can have it: 8 MiB"
                " (Cannot allocate memory)\n"
                "free page reporting: off\n"
                "free page hinting: on\n"
                "given back to the host: 256 MiB (system calls: 256)\n"
                "waiting to be given back: 2 MiB\n"
                "not given back: 4 KiB, refused by the host\n");
}

static void assert_stats_text(const BalloonStatsInfo *info,
                              const char *expected)
{
    g_autoptr(GString) text = qemu_balloon_stats_text(info);

    g_assert_cmpstr(text->str, ==, expected);
}

static void test_stats_text(void)
{
    BalloonStats stats = {
        .has_free_memory = true,
        .free_memory = 300 * MiB,
        .has_swap_out = true,
        .swap_out = 8 * KiB,
        .has_oom_kills = true,
        .oom_kills = 1,
    };
    BalloonStatsInfo info = { .pending = false };

    assert_stats_text(&info, "");
    info.stats = &stats;
    info.has_answered_ago = true;
    info.answered_ago = 12999;
    assert_stats_text(&info, "guest statistics: 12 s old, free 300 MiB,"
                      " swapped out 8 KiB, killed for lack of memory 1\n");
    info.stats = NULL;
    info.pending = info.has_asked_ago = true;
    info.asked_ago = 3000;
    assert_stats_text(&info, "guest statistics: asked for 3 s ago, no answer"
                      " yet\n");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/balloon/none", test_none);
    g_test_add_func("/balloon/all-operations", test_all_operations);
    g_test_add_func("/balloon/plain", test_plain);
    g_test_add_func("/balloon/hint/all-operations", test_hint_all_operations);
    g_test_add_func("/balloon/hint/plain", test_hint_plain);
    g_test_add_func("/balloon/one-only", test_one_only);
    g_test_add_func("/balloon/kvm", test_kvm);
    g_test_add_func("/balloon/text", test_text);
    g_test_add_func("/balloon/stats-text", test_stats_text);
    return g_test_run();
}
