/*
 * Fuzzing the virtio balloon: what the host does meanwhile
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-machine.h"
#include "qapi/qapi-commands-migration.h"
#include "io/channel-buffer.h"
#include "migration/global_state.h"
#include "migration/misc.h"
#include "qom/object.h"
#include "standard-headers/linux/pci_regs.h"
#include "standard-headers/linux/virtio_config.h"
#include "system/runstate.h"
#include "system/system.h"
#include "../../../migration/qemu-file.h"
#include "../../../migration/savevm.h"
#include "virtio_balloon_fuzz.h"

/* So slow that hints can be given, and so fast that it ends */
#define SLOW (256 * KiB)
#define FAST (1 * GiB)
/* Any end of a migration takes milliseconds */
#define TIMEOUT_US (60 * G_USEC_PER_SEC)

static Object *balloon;
/* What a reset of the machine clears in the PCI device */
static uint32_t bars[6];
static uint16_t command;

void fuzz_run(unsigned n)
{
    while (n--) {
        main_loop_wait(true);
    }
}

static void set_bandwidth(uint64_t bytes)
{
    MigrateSetParameters parameters = {
        .has_max_bandwidth = true,
        .max_bandwidth = bytes,
    };

    qmp_migrate_set_parameters(&parameters, &error_abort);
}

/* Wait, by the clock that this program cannot move */
static void wait_for_migration(void)
{
    int64_t end = g_get_real_time() + TIMEOUT_US;

    while (migration_is_running()) {
        g_assert_cmpint(g_get_real_time(), <, end);
        main_loop_wait(true);
        bql_unlock();
        sched_yield();
        bql_lock();
    }
}

static void migrate(void)
{
    if (!migration_is_running()) {
        set_bandwidth(SLOW);
        qmp_migrate("file:/dev/null", false, NULL, false, false, false, false,
                    NULL);
    }
}

/* Let the migration thread have a turn */
static void yield_bql(void)
{
    bql_unlock();
    g_usleep(200);
    bql_lock();
    fuzz_run(2);
}

static void finish_migration(void)
{
    if (migration_is_running()) {
        set_bandwidth(FAST);
        wait_for_migration();
    }
}

static void cancel_migration(void)
{
    if (migration_is_running()) {
        qmp_migrate_cancel(&error_abort);
        wait_for_migration();
    }
}

static void reset_machine(FuzzBalloon *f)
{
    qemu_system_reset(SHUTDOWN_CAUSE_GUEST_RESET);
    for (int i = 0; i < G_N_ELEMENTS(bars); i++) {
        qpci_config_writel(f->pci->pdev, PCI_BASE_ADDRESS_0 + 4 * i, bars[i]);
    }
    qpci_config_writew(f->pci->pdev, PCI_COMMAND, command);
    /* The reset wrote ROMs, and all requests are forgotten */
    fuzz_pages_check(f);
    fuzz_driver_reset(f);
    fuzz_pages_use_all(f);
}

static QIOChannelBuffer *save_devices(void)
{
    QIOChannelBuffer *saved = qio_channel_buffer_new(64 * KiB);
    QIOChannelBuffer *copy = qio_channel_buffer_new(64 * KiB);
    QEMUFile *file = qemu_file_new_output(QIO_CHANNEL(saved));

    g_assert(qemu_save_device_state(file) == 0);
    qemu_fflush(file);
    /* A buffer that is closed has lost its contents */
    qio_channel_write_all(QIO_CHANNEL(copy), (char *)saved->data,
                          saved->usage, &error_abort);
    qio_channel_io_seek(QIO_CHANNEL(copy), 0, SEEK_SET, &error_abort);
    qemu_fclose(file);
    object_unref(OBJECT(saved));
    return copy;
}

static void load_devices(QIOChannelBuffer *saved)
{
    QEMUFile *file = qemu_file_new_input(QIO_CHANNEL(saved));

    /* A magic number and a version */
    qemu_get_be32(file);
    qemu_get_be32(file);
    g_assert(qemu_load_device_state(file) == 0);
    qemu_fclose(file);
    object_unref(OBJECT(saved));
}

/*
 * The devices' state goes to memory and comes back.  Of a driver that writes to
 * its used ring, or uses modern registers without VERSION_1, the virtio core
 * refuses the state, and then no machine is left to go on with.
 */
static void save_and_load(FuzzBalloon *f)
{
    if (!f->sane || !(f->features & 1ull << VIRTIO_F_VERSION_1)) {
        return;
    }
    vm_stop(RUN_STATE_SAVE_VM);
    global_state_store_running();
    load_devices(save_devices());
    vm_start();
}

/* These take milliseconds each */
static void heavy_op(FuzzBalloon *f, uint8_t op)
{
    switch (op % 8) {
    case 0:
        migrate();
        break;
    case 1:
        cancel_migration();
        break;
    case 2:
        finish_migration();
        break;
    case 3:
        reset_machine(f);
        break;
    case 4:
        if (!migration_is_running()) {
            save_and_load(f);
        }
        break;
    default:
        yield_bql();
        break;
    }
}

void fuzz_host_op(FuzzBalloon *f, FuzzInput *in)
{
    uint8_t op = fuzz_u8(in);

    switch (op & 7) {
    case 0:
        qmp_balloon((int64_t)fuzz_u32(in) << (op >> 3 & 15), NULL);
        break;
    case 1:
        object_property_set_int(balloon, "guest-stats-polling-interval",
                                fuzz_u8(in) & 3, &error_abort);
        break;
    case 2:
        qtest_clock_step(f->qts, 1000000000);
        break;
    case 3:
        vm_stop(RUN_STATE_PAUSED);
        break;
    case 4:
        vm_start();
        break;
    case 5:
        qapi_free_BalloonInfo(qmp_query_balloon(&error_abort));
        break;
    default:
        if (f->host_ops) {
            heavy_op(f, op >> 3);
        }
        break;
    }
}

void fuzz_host_settle(FuzzBalloon *f)
{
    cancel_migration();
    if (!runstate_is_running()) {
        vm_start();
    }
    object_property_set_int(balloon, "guest-stats-polling-interval", 0,
                            &error_abort);
}

void fuzz_host_init(FuzzBalloon *f)
{
    balloon = object_resolve_path_type("", "virtio-balloon-device", NULL);
    g_assert_nonnull(balloon);
    for (int i = 0; i < G_N_ELEMENTS(bars); i++) {
        bars[i] = qpci_config_readl(f->pci->pdev,
                                    PCI_BASE_ADDRESS_0 + 4 * i);
    }
    command = qpci_config_readw(f->pci->pdev, PCI_COMMAND);
}
