/*
 * The virtio balloon: features, queues, config space, PCI identity, machines,
 * transports
 *
 * virtio 1.2, sections 5.5.2 to 5.5.4
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "virtio-balloon-case.h"
#include "hw/pci/pci_regs.h"
#include "libqos/virtio-mmio.h"
#include "standard-headers/linux/virtio_config.h"

/* Feature bits that devices have for themselves (section 2.2) */
#define DEVICE_BITS (0xffffffull | 0x3full << 50)

typedef struct Variant {
    const char *properties;
    uint64_t features;
    unsigned config_size;
    unsigned queues;
    unsigned vectors;
} Variant;

static const Variant variants[] = {
    { "", 0x12, 16, 3, 2 },
    { ",page-poison=off", 0x02, 8, 3, 2 },
    { ",page-poison=off,qemu-4-0-config-size=on", 0x02, 16, 3, 2 },
    { ",qemu-4-0-config-size=on", 0x12, 16, 3, 2 },
    { ",deflate-on-oom=on", 0x16, 16, 3, 2 },
    { ",deflate-on-oom=on,page-poison=off", 0x06, 8, 3, 2 },
    { ",free-page-reporting=on", 0x32, 16, 4, 2 },
    { ",free-page-reporting=on,page-poison=off", 0x22, 8, 4, 2 },
    { ",free-page-hint=on,iothread=io0", 0x1a, 16, 4, 2 },
    { ",free-page-hint=on,iothread=io0,page-poison=off", 0x0a, 12, 4, 2 },
    { ",free-page-hint=on,iothread=io0,page-poison=off"
      ",qemu-4-0-config-size=on", 0x0a, 16, 4, 2 },
    { ",free-page-hint=on,iothread=io0,free-page-reporting=on",
      0x3a, 16, 5, 2 },
    { ",free-page-hint=on,iothread=io0,free-page-reporting=on"
      ",deflate-on-oom=on,page-poison=off", 0x2e, 12, 5, 2 },
    { ",iothread=io0", 0x12, 16, 3, 2 },
};

/* On old machine types: what a guest saw it goes on seeing */
typedef struct Machine {
    const char *path;
    const char *version;
    Variant variant;
} Machine;

static const Machine machines[] = {
    { "3.1", "3.1", { "", 0x02, 8, 3, 0 } },
    { "4.0", "4.0", { "", 0x02, 16, 3, 0 } },
    { "4.1", "4.1", { "", 0x02, 8, 3, 0 } },
    { "5.0", "5.0", { "", 0x02, 8, 3, 0 } },
    { "5.1", "5.1", { "", 0x12, 16, 3, 0 } },
    { "7.2", "7.2", { "", 0x12, 16, 3, 0 } },
    { "9.2", "9.2", { "", 0x12, 16, 3, 0 } },
    { "10.0", "10.0", { "", 0x12, 16, 3, 2 } },
    /* What the user says wins over what the machine type says */
    { "overridden", "5.0", { ",page-poison=on,vectors=2", 0x12, 16, 3, 2 } },
};

/* What is there reads as it is, what is not as ones */
static void assert_config_size(BalloonDriver *d, unsigned size)
{
    for (unsigned i = 0; i < size; i++) {
        g_assert_cmphex(balloon_readb(d, i), ==, 0);
    }
    for (unsigned i = size; i < 64; i++) {
        g_assert_cmphex(balloon_readb(d, i), ==, 0xff);
    }
    g_assert_cmphex(d->vdev->bus->config_readl(d->vdev, size), ==, 0xffffffff);
    g_assert_cmphex(d->vdev->bus->config_readw(d->vdev, size + 2), ==, 0xffff);
}

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

static void variant(BalloonDriver *d)
{
    const Variant *v = d->data;

    g_assert_cmphex(balloon_negotiate(d, BALLOON_ALL_FEATURES) & DEVICE_BITS,
                    ==, v->features);
    assert_config_size(d, v->config_size);

    /* writes past the end are ignored */
    for (int at = v->config_size; at < 24; at++) {
        balloon_writel(d, at, 0x5a5a5a5a);
    }
    assert_config_size(d, v->config_size);

    for (unsigned q = 0; q < 8; q++) {
        g_assert(!balloon_queue_size(d, q) == (q >= v->queues));
    }
    g_assert_cmpuint(msix_vectors(d->pci->pdev), ==, v->vectors);
}

/* Drivers count on so many entries */
static void queue_sizes(BalloonDriver *d)
{
    static const unsigned least[] = { 128, 128, 128, 1024, 32 };

    for (int i = 0; i < ARRAY_SIZE(least); i++) {
        g_assert_cmpuint(balloon_queue_size(d, i), >=, least[i]);
    }
}

static void read_only(BalloonDriver *d)
{
    balloon_set_target(d->qts, 64 * MiB);
    balloon_writel(d, BALLOON_CFG_NUM_PAGES, 0x11111111);
    balloon_writeb(d, BALLOON_CFG_NUM_PAGES + 1, 0x11);
    balloon_writel(d, BALLOON_CFG_CMD_ID, 0x22222222);
    balloon_writew(d, BALLOON_CFG_CMD_ID + 2, 0x2222);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_NUM_PAGES), ==, 0x4000);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_CMD_ID), ==, 0);
    g_assert_cmpint(balloon_query(d->qts), ==, RAM);

    /* neither is it changed by a write elsewhere */
    balloon_writel(d, BALLOON_CFG_ACTUAL, 0x100);
    balloon_writel(d, BALLOON_CFG_POISON, 1);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_NUM_PAGES), ==, 0x4000);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_CMD_ID), ==, 0);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_ACTUAL), ==, 0x100);
}

static void assert_actual(BalloonDriver *d, uint32_t actual)
{
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_ACTUAL), ==, actual);
    g_assert_cmpint(balloon_query(d->qts), ==,
                    RAM - (int64_t)actual * BALLOON_PAGE);
}

/* With VERSION_1 a write of any width counts at once */
static void actual_widths(BalloonDriver *d)
{
    balloon_writel(d, BALLOON_CFG_ACTUAL, 0x1234);
    assert_actual(d, 0x1234);
    balloon_writeb(d, BALLOON_CFG_ACTUAL, 0x56);
    assert_actual(d, 0x1256);
    balloon_writeb(d, BALLOON_CFG_ACTUAL + 1, 0x7f);
    assert_actual(d, 0x7f56);
    balloon_writew(d, BALLOON_CFG_ACTUAL, 0x4321);
    assert_actual(d, 0x4321);
    balloon_writew(d, BALLOON_CFG_ACTUAL, 0x4321);
    assert_actual(d, 0x4321);
    balloon_writew(d, BALLOON_CFG_ACTUAL + 2, 0);
    balloon_writeb(d, BALLOON_CFG_ACTUAL + 3, 0);
    assert_actual(d, 0x4321);
    balloon_writel(d, BALLOON_CFG_ACTUAL, RAM / BALLOON_PAGE);
    assert_actual(d, RAM / BALLOON_PAGE);
    balloon_writel(d, BALLOON_CFG_ACTUAL, 0);
    assert_actual(d, 0);
}

/*
 * virtio 1.2, section 5.5.6.2.1: the device does not act on actual before its
 * top byte was written, whatever else is, and in whatever order
 */
static void legacy_actual(BalloonDriver *d)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(2);
    uint8_t written[4] = {};
    int64_t expected = RAM;

    for (int i = 0; i < 500; i++) {
        int width = 1 << g_rand_int_range(rand, 0, 3);
        int at = g_rand_int_range(rand, 0, 4 / width) * width;
        uint32_t value = at < 2 ? g_rand_int_range(rand, 0, 0x8000) : 0;

        memcpy(written + at, &value, width);
        if (at + width == 4) {
            expected = MAX(RAM - BALLOON_PAGE * (int64_t)ldl_le_p(written), 0);
        }
        if (width == 1) {
            balloon_writeb(d, BALLOON_CFG_ACTUAL + at, value);
        } else if (width == 2) {
            balloon_writew(d, BALLOON_CFG_ACTUAL + at, value);
        } else {
            balloon_writel(d, BALLOON_CFG_ACTUAL, value);
        }
        g_assert_cmpint(balloon_query(d->qts), ==, expected);
        if (g_rand_boolean(rand)) {
            g_assert_cmphex(balloon_readl(d, BALLOON_CFG_ACTUAL) & 0xffff, ==,
                            lduw_le_p(written));
        }
    }
    balloon_writeb(d, BALLOON_CFG_ACTUAL, 0xff);
    balloon_restart(d);
    assert_actual(d, 0);
}

/* poison_val is for those who agreed on PAGE_POISON; a reset clears it */
static void poison(BalloonDriver *d)
{
    balloon_negotiate(d, BALLOON_ALL_FEATURES);
    balloon_writel(d, BALLOON_CFG_POISON, 0xaaaaaaaa);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_POISON), ==, 0xaaaaaaaa);
    balloon_writeb(d, BALLOON_CFG_POISON + 1, 0x55);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_POISON), ==, 0xaaaa55aa);
    balloon_reset(d);
    balloon_negotiate(d, 0);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_POISON), ==, 0);
    balloon_writel(d, BALLOON_CFG_POISON, 0xaaaaaaaa);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_POISON), ==, 0);
}

/* Properties and their defaults, on the proxy */
static void properties(BalloonDriver *d)
{
    static const struct {
        const char *name;
        bool value;
    } defaults[] = {
        { "deflate-on-oom", false }, { "free-page-hint", false },
        { "page-poison", true }, { "free-page-reporting", false },
        { "qemu-4-0-config-size", false },
    };

    for (int i = 0; i < ARRAY_SIZE(defaults); i++) {
        g_assert(qtest_qom_get_bool(d->qts, BALLOON_PATH, defaults[i].name) ==
                 defaults[i].value);
        g_assert(qtest_qom_get_bool(d->qts, BALLOON_BACKEND_PATH,
                                    defaults[i].name) == defaults[i].value);
    }
}

static void identity(BalloonDriver *d)
{
    bool modern = d->data;
    const struct {
        int offset;
        uint16_t value;
    } ids[] = {
        { PCI_VENDOR_ID, 0x1af4 },
        { PCI_DEVICE_ID, modern ? 0x1045 : 0x1002 },
        { PCI_SUBSYSTEM_VENDOR_ID, 0x1af4 },
        { PCI_SUBSYSTEM_ID, modern ? 0x1100 : 0x0005 },
        { PCI_CLASS_DEVICE, 0x00ff },
    };

    for (int i = 0; i < ARRAY_SIZE(ids); i++) {
        g_assert_cmphex(qpci_config_readw(d->pci->pdev, ids[i].offset), ==,
                        ids[i].value);
    }
}

/* The life of a driver that is at DRIVER_OK; the VM has 128 MiB */
static void live(BalloonDriver *d)
{
    balloon_assert_works(d);
    balloon_assert_resizes(d);
    g_assert_cmpint(balloon_query(d->qts), ==, RAM);
    balloon_writel(d, BALLOON_CFG_ACTUAL, 2);
    g_assert_cmphex(balloon_readl(d, BALLOON_CFG_ACTUAL), ==, 2);
    /* another value each time */
    balloon_leave_stats(d, balloon_free_memory(d->qts) + 12345);
}

static void pci(BalloonDriver *d)
{
    bool legacy = d->data;

    g_assert(!(d->vdev->features & 1ull << VIRTIO_F_VERSION_1) == legacy);
    live(d);
    balloon_restart(d);
    live(d);
}

static void no_vectors(BalloonDriver *d)
{
    g_assert_cmpuint(msix_vectors(d->pci->pdev), ==, 0);
    live(d);
}

static QVirtQueuePCI *pci_queue(BalloonDriver *d, int index)
{
    return container_of(d->vq[index], QVirtQueuePCI, vq);
}

/* One vector for config, one for all queues: what Linux does with two */
static void msix(BalloonDriver *d)
{
    qpci_msix_enable(d->pci->pdev);
    g_assert_cmpuint(qpci_msix_table_size(d->pci->pdev), ==, 2);
    balloon_negotiate(d, BALLOON_ALL_FEATURES);
    qvirtio_pci_set_msix_configuration_vector(d->pci, d->alloc, 0);
    balloon_setup_queues(d);
    for (int i = 0; d->vq[i]; i++) {
        qvirtqueue_pci_msix_setup(d->pci, pci_queue(d, i), d->alloc, 1);
    }
    /* the queues share the vector: the last one's address is the one in use */
    for (int i = 0; d->vq[i]; i++) {
        pci_queue(d, i)->msix_addr = pci_queue(d, STATS)->msix_addr;
    }
    qvirtio_set_driver_ok(d->vdev);
    live(d);
}

/* Find the balloon among the eight transports of a microvm */
static void find_mmio(QVirtioMMIODevice *mmio, QTestState *qts)
{
    for (int i = 0; i < 8; i++) {
        qvirtio_mmio_init_device(mmio, qts, 0xfeb00000 + i * 512, 4096);
        if (mmio->vdev.device_type == VIRTIO_ID_BALLOON) {
            return;
        }
    }
    g_assert_not_reached();
}

static void mmio(BalloonDriver *d)
{
    QTestState *qts = qtest_init("-machine microvm,acpi=off -m 128"
                                 " -device virtio-balloon-device,id=balloon0");
    QGuestAllocator alloc;
    QVirtioMMIODevice device = {};

    alloc_init(&alloc, ALLOC_NO_FLAGS, MiB, RAM, 4096);
    find_mmio(&device, qts);
    balloon_attach(d, qts, &device.vdev, &alloc);
    qvirtio_start_device(d->vdev);
    balloon_start(d, BALLOON_ALL_FEATURES);
    live(d);
    balloon_lose(d);
    alloc_destroy(&alloc);
    qtest_quit(qts);
}

static const BalloonTest tests[] = {
    { "config/identity/virtio-balloon", identity, "virtio-balloon" },
    { "config/identity/virtio-balloon-pci", identity },
    { "config/identity/virtio-balloon-pci-transitional", identity,
      PLAIN "-transitional" },
    { "config/identity/virtio-balloon-pci-non-transitional", identity,
      PLAIN "-non-transitional", .data = "modern" },
    { "config/queue-sizes", queue_sizes, ALL_QUEUES },
    { "config/read-only", read_only, HINTING },
    { "config/actual-widths", actual_widths },
    { "config/poison", poison, .unstarted = true },
    { "config/properties", properties },
    { "improved/config/legacy-actual", legacy_actual, PLAIN LEGACY },
    { "transport/pci/default", pci },
    { "transport/pci/transitional", pci, PLAIN "-transitional" },
    { "transport/pci/non-transitional", pci, PLAIN "-non-transitional" },
    { "transport/pci/modern", pci, PLAIN ",disable-legacy=on" },
    { "transport/pci/legacy", pci, PLAIN LEGACY, .data = "legacy" },
    { "transport/pci/page-per-vq", pci, PLAIN ",page-per-vq=on" },
    { "transport/pci/no-ioeventfd", pci, PLAIN KICKED },
    { "transport/pci/no-vectors", no_vectors, PLAIN ",vectors=0" },
    { "transport/pci/msix", msix, .unstarted = true },
    { "transport/pci/legacy-msix", msix, PLAIN LEGACY, .unstarted = true },
    { "transport/mmio", mmio, .bare = true },
};

static void add_variant(const char *prefix, const char *name,
                        const Variant *v, const char *machine)
{
    g_autofree char *device = g_strconcat(PLAIN, v->properties, NULL);
    BalloonTest test = { name, variant, device, .data = v,
                         .machine = machine, .unstarted = true };

    balloon_add_tests(prefix, NULL, &test, 1);
}

static void add_variants(void)
{
    for (int i = 0; i < ARRAY_SIZE(variants); i++) {
        const char *name = variants[i].properties;

        add_variant("config/variant/", *name ? name + 1 : "default",
                    &variants[i], NULL);
    }
    for (int i = 0; i < 2 * ARRAY_SIZE(machines); i++) {
        const Machine *m = &machines[i / 2];
        const char *family = i % 2 ? "q35" : "i440fx";
        g_autofree char *prefix = g_strdup_printf("machine/%s/", m->path);
        g_autofree char *name = g_strdup_printf("pc-%s-%s", family,
                                                m->version);

        add_variant(prefix, family, &m->variant, g_intern_string(name));
    }
}

BALLOON_ADD(add_variants)
BALLOON_TESTS("", NULL, tests)
