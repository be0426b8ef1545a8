#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest moves in the middle of what happens to its balloon."""

from virtio_balloon_full import KEPT, MEMORY, SLEEP, SMALL, FullBalloonTest
from virtio_balloon_guest import BIND, UNBIND
from virtio_balloon_testcase import improved

GIVEN = MEMORY - SMALL
# How often to try to catch the guest in the middle of something
TRIES = 100


@improved
class VirtioBalloonMidway(FullBalloonTest):
    """Migration in the middle of what happens to a balloon."""

    def halfway(self, guest, what, begin, again):
        """Stop the machine in the middle of what @begin begins.

        @what: the counter of the bytes that this moves.  @again: ends it and
        undoes it, for another try.
        """
        def counted():
            return guest.vm.cmd("query-balloon")["counters"][what] - before

        for _ in range(TRIES):
            before = guest.vm.cmd("query-balloon")["counters"][what]
            begin()
            guest.until(counted, 60, lambda: f"{what} stays as it is")
            guest.vm.cmd("stop")
            if counted() < GIVEN:
                return
            guest.vm.cmd("cont")
            again()
        self.fail(f"{TRIES} times it was over before it could be stopped")

    def twice(self, guest, move):
        """@move the guest while it runs, and while it stands still."""
        for live in True, False:
            guest = move(guest, live)
            guest.run(f"memtool verify {KEPT}")
            guest.reach(SMALL)
        self.check_end(guest)

    def test_inflating(self):
        """While it inflates."""
        def move(guest, live):
            guest.resize(MEMORY)
            self.halfway(guest, "inflated",
                         lambda: guest.target(SMALL),
                         lambda: guest.resize(MEMORY))
            return self.moved(guest, live)

        self.twice(self.full(), move)

    def test_deflating(self):
        """While it deflates."""
        def move(guest, live):
            self.halfway(guest, "deflated",
                         lambda: guest.target(MEMORY),
                         lambda: guest.resize(SMALL))
            guest = self.moved(guest, live)
            guest.reach(MEMORY)
            guest.run(f"{self.check(guest)} && rm /mem/all")
            guest.target(SMALL)
            return guest

        self.twice(self.inflated(), move)

    def test_unbinding(self):
        """While the driver gives everything back to go."""
        # In the background, for nobody knows where an answer would arrive
        unbind = f">/run/code; ({UNBIND}; echo $? >/run/code) >/run/log 2>&1 &"

        def bind(guest):
            guest.until(lambda: guest.run("cat /run/code") == "0\n", 60,
                        lambda: "unbind: " + guest.run("cat /run/log"))
            guest.run(BIND)
            guest.reach(SMALL)

        def move(guest, live):
            self.halfway(guest, "deflated",
                         lambda: guest.run(unbind),
                         lambda: bind(guest))
            guest = self.moved(guest, live)
            bind(guest)
            return guest

        self.twice(self.inflated(), move)

    def test_suspending(self):
        """While the driver gives everything back to sleep."""
        def move(guest, live):
            self.halfway(guest, "deflated",
                         lambda: guest.channel.send(SLEEP),
                         lambda: self.wake(guest))
            guest = self.moved(guest, live)
            self.wake(guest)
            return guest

        self.twice(self.inflated(), move)

    def beginning(self, begin):
        """While the guest boots, before it has a driver."""
        def move(guest, live):
            begin(guest)
            guest.vm.cmd("stop")
            guest = self.moved(guest, live)
            guest.run(f"memtool fill {KEPT}", timeout=120)
            return guest

        self.twice(self.inflated(), move)

    def test_kexec(self):
        """While the next kernel begins."""
        self.beginning(self.kexec)

    def test_reboot(self):
        """While the firmware runs."""
        self.beginning(lambda guest: self.reset(
            guest, lambda: guest.channel.send("reboot -f")))


if __name__ == "__main__":
    FullBalloonTest.main()
