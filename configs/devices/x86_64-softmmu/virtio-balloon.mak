# SPDX-License-Identifier: GPL-2.0-or-later
# PCs with a balloon and next to nothing else: builds with sanitizers are slow
CONFIG_I440FX=y
CONFIG_Q35=y
CONFIG_NVDIMM=y
CONFIG_PCI_DEVICES=y
CONFIG_VIRTIO_PCI=y
CONFIG_VIRTIO_BALLOON=y
