#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The compiler of a coverage build: cc-coverage.sh COMPILER ARGUMENT...
#
# Only our files count lines, so all others are in the compiler's cache.
for argument; do
    case $argument in
    */hw/virtio/virtio-balloon*.c | */system/balloon.c) ours=yes ;;
    # has the rounds of hints in it
    */tests/unit/test-virtio-balloon-hint-rounds.c) ours=yes ;;
    -c | -E | -S) compile=yes ;;
    esac
done
# Lines that are optimised away, or together, would not be counted rightly
if [ "${ours-}" ]; then
    set -- "$@" --coverage -Og -Wno-maybe-uninitialized
elif ! [ "${compile-}" ]; then
    set -- "$@" --coverage
fi
exec "$@"
