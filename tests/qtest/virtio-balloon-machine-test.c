/*
 * The virtio balloon on old machine types: what a guest saw it goes on seeing
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-balloon-test.h"
#include "hw/pci/pci_regs.h"

typedef struct Machine {
    const char *version;
    unsigned config_size;
    bool page_poison;
    unsigned vectors;
} Machine;

static const Machine machines[] = {
    { "3.1", 8, false, 0 },
    { "4.0", 16, false, 0 },
    { "4.1", 8, false, 0 },
    { "5.0", 8, false, 0 },
    { "5.1", 16, true, 0 },
    { "7.2", 16, true, 0 },
    { "9.2", 16, true, 0 },
    { "10.0", 16, true, 2 },
};

/* The size of the MSI-X table; 0 if there is none */
static unsigned msix_vectors(QPCIDevice *pdev)
{
    uint8_t cap = qpci_find_capability(pdev, PCI_CAP_ID_MSIX, 0);

    if (!cap) {
        return 0;
    }
    return (qpci_config_readw(pdev, cap + PCI_MSIX_FLAGS) &
            PCI_MSIX_FLAGS_QSIZE) + 1;
}

static void assert_machine(const Machine *m, const char *family)
{
    g_autofree char *name = g_strdup_printf("pc-%s-%s", family, m->version);
    g_autofree char *options = g_strdup_printf("-machine %s", name);
    BalloonDriver d;
    uint64_t offered;

    if (!qtest_has_machine(name)) {
        return;
    }
    balloon_boot(&d, NULL, options);
    offered = balloon_negotiate(&d, BALLOON_ALL_FEATURES);
    g_assert_cmphex(offered & 0xffffff, ==, m->page_poison ? 0x12 : 0x02);
    g_assert_cmphex(balloon_readb(&d, m->config_size - 1), ==, 0);
    g_assert_cmphex(balloon_readb(&d, m->config_size), ==, 0xff);
    g_assert_cmpuint(msix_vectors(d.pci->pdev), ==, m->vectors);
    balloon_quit(&d);
}

static void machine(const void *data)
{
    assert_machine(data, "i440fx");
    assert_machine(data, "q35");
}

/* What the user says wins over what the machine type says */
static void machine_overridden(void)
{
    BalloonDriver d;

    if (!qtest_has_machine("pc-i440fx-5.0")) {
        g_test_skip("no such machine");
        return;
    }
    balloon_boot(&d, "virtio-balloon-pci,page-poison=on,vectors=2",
                 "-machine pc-i440fx-5.0");
    g_assert_cmphex(balloon_negotiate(&d, BALLOON_ALL_FEATURES) & 0xffffff,
                    ==, 0x12);
    g_assert_cmphex(balloon_readb(&d, BALLOON_CFG_POISON), ==, 0);
    g_assert_cmpuint(msix_vectors(d.pci->pdev), ==, 2);
    balloon_quit(&d);
}

void virtio_balloon_add_machine_tests(void)
{
    for (int i = 0; i < ARRAY_SIZE(machines); i++) {
        g_autofree char *path = g_strconcat("/virtio-balloon/machine/",
                                            machines[i].version, NULL);

        qtest_add_data_func(path, &machines[i], machine);
    }
    qtest_add_func("/virtio-balloon/machine/overridden", machine_overridden);
}
