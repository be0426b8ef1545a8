#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Fetch what this project is built on and with, into the user's cache folder.

QEMU's source and a few tools come from Debian 13 through a private apt
configuration: the machine's own sources, lists and packages are not touched.

usage: base.py packages [MORE]  names of the Debian packages, of packages.txt
                                and packages-MORE.txt, that are not installed
       base.py fetch            QEMU's source and its build tools; prints the
                                path
       base.py processors       how many may be used

The environment may say which QEMU: QEMU_BASE=10.2 (default: 10.0), or a tree,
QEMU_SRC=PATH.
"""

import argparse
import contextlib
import fcntl
import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile

REPO = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SUITE = "trixie"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Releases of QEMU, and the suite that has the source of each
BASES = {"10.0": SUITE, "10.2": "sid"}
DEFAULT = "10.0"
# "max PERIOD", or how much of each period of time the processors may be used
QUOTA = "/sys/fs/cgroup/cpu.max"
SUPPORTED = re.compile(r"1[01]\.\d+")
# A source tree, two builds of it and the compiler cache, with room to spare
NEEDED_GIB = 5


class BaseError(Exception):
    """Something is missing; the message says what, and what to do.

    The errors of the other tools are of this class, too: see told().
    """


def say(message):
    print(f"==> {message}", file=sys.stderr, flush=True)


def cache(*parts):
    """A path in the cache folder; the folder is made."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    path = os.path.join(root, "virtio-balloon", *parts)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


@contextlib.contextmanager
def told(name, *errors):
    """Errors that are the user's to mend end the tool @name with a line each.

    @errors: classes of them besides BaseError and the system's
    """
    try:
        yield
    except subprocess.CalledProcessError as error:
        command = error.cmd.split() if isinstance(error.cmd, str) else error.cmd
        sys.exit(f"{name}: {command[0]} failed; what it said is above")
    except (BaseError, OSError, *errors) as error:
        sys.exit(f"{name}: {error}")
    except KeyboardInterrupt:
        print(f"{name}: interrupted; it goes on from here when called again",
              file=sys.stderr)
        sys.exit(130)


def parser(doc):
    """A parser of options, for a program whose @doc says which there are."""
    return argparse.ArgumentParser(
        description=doc, usage=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter)


def understood(options=None):
    """@options, if they are to be followed: ./balloon asks before it builds."""
    if os.environ.get("BALLOON_UNDERSTOOD"):
        sys.exit(99)
    return options


@contextlib.contextmanager
def locked(name):
    """Two clones on one machine do not fetch or build the same thing at once."""
    with open(cache(name + ".lock"), "w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another ./balloon, which is busy with {name}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def check_disk(path, advice):
    """@advice: what else helps than to make room."""
    free = shutil.disk_usage(path).free / 2**30
    if free < NEEDED_GIB:
        raise BaseError(f"{free:.1f} GiB are free in {path}, {NEEDED_GIB} GiB"
                        f" are needed: make room, or {advice}")


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def one_line_sources(text):
    """(URI, suites, components) of each `deb` line."""
    for line in text.splitlines():
        match = re.match(r"deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)\s+(.+)", line)
        if match:
            yield match[1], [match[2]], match[3].split()


def deb822_sources(text):
    """The same of each paragraph of a .sources file."""
    text = re.sub(r"^#.*\n?", "", text, flags=re.M)
    for paragraph in re.split(r"\n\s*\n", text):
        fields = dict((key.lower(), value) for key, value in
                      re.findall(r"^([\w-]+):[ \t]*(.*)$", paragraph, re.M))
        if ("deb" in fields.get("types", "").split() and
                fields.get("enabled", "yes").strip() != "no"):
            for uri in fields.get("uris", "").split():
                yield (uri, fields.get("suites", "").split(),
                       fields.get("components", "").split())


def apt_sources():
    """(URI, suites, components) of all that apt is set up with."""
    paths = ["/etc/apt/sources.list",
             *sorted(glob.glob("/etc/apt/sources.list.d/*.list") +
                     glob.glob("/etc/apt/sources.list.d/*.sources"))]
    for path in filter(os.path.isfile, paths):
        yield from (deb822_sources if path.endswith(".sources")
                    else one_line_sources)(read(path))


def mirror():
    """The mirror of Debian's main archive that this machine uses.

    Others have suites of Debian's names, too, but only Debian has updates.
    """
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)', read("/etc/os-release"),
                              re.M))
    wanted = {release.get("VERSION_CODENAME"), "stable", "testing"}
    updates = {f"{suite}-updates" for suite in wanted}
    sources = [(uri, suites) for uri, suites, components in apt_sources()
               if "main" in components and not uri.startswith("cdrom:")]
    found = [uri for uri, suites in sources if wanted.intersection(suites)]
    updated = [uri for uri, suites in sources if updates.intersection(suites)]
    if not found:
        raise BaseError("apt is set up with no mirror of Debian: run this on"
                        " Debian 12 or 13, or set QEMU_SRC=<a QEMU 10.0 tree>")
    return next((uri for uri in found if uri in updated), found[0])


def write_apt_configuration(folder, suite, architecture=None):
    """Configuration with which apt knows only @suite; returns its path.

    @architecture: of packages; None is the guest's, with QEMU's source.
    """
    for name in ("lists/partial", "cache/archives/partial"):
        os.makedirs(os.path.join(folder, name), exist_ok=True)
    uri = mirror()
    with open(f"{folder}/sources.list", "w", encoding="utf-8") as file:
        for kind in kinds(suite, architecture):
            file.write(f"{kind} [signed-by={KEYRING}] {uri} {suite} main\n")
    path = os.path.join(folder, "apt.conf")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f'Dir::Etc::SourceList "{folder}/sources.list";\n'
                   'Dir::Etc::SourceParts "/dev/null";\n'
                   'Dir::Etc::Preferences "/dev/null";\n'
                   'Dir::Etc::PreferencesParts "/dev/null";\n'
                   f'Dir::State::Lists "{folder}/lists";\n'
                   f'Dir::Cache "{folder}/cache";\n'
                   # of the guest, whatever this machine is
                   f'APT::Architecture "{architecture or "amd64"}";\n'
                   'APT::Sandbox::User "";\n')
    return path


def kinds(suite, architecture):
    """Which lists are fetched: of packages, of sources."""
    if architecture:
        return ("deb",)
    return ("deb", "deb-src") if suite == SUITE else ("deb-src",)


def apt_environment(refresh=False, suite=SUITE, architecture=None):
    """Environment in which apt knows only @suite; its lists are fetched."""
    name = "apt" if suite == SUITE else f"apt-{suite}"
    if architecture:
        name = f"apt-{suite}-{architecture}"
    folder = os.path.dirname(cache(name, ""))
    path = write_apt_configuration(folder, suite, architecture)
    # LANGUAGE is heeded all the same by the C library of Debian 12
    environment = dict(os.environ, APT_CONFIG=path, LC_ALL="C.UTF-8",
                       LANGUAGE="")
    lists = "Packages" if architecture else "Sources"
    if refresh or not glob.glob(f"{folder}/lists/*{suite}*{lists}*"):
        say("fetching the package lists of Debian's suite"
            f" {' '.join(filter(None, (suite, architecture)))}")
        # By itself it takes a mirror that is out of reach for no error
        run(apt_command("apt-get", "update", "--error-on=any"), environment)
    return environment


def apt_command(program, *arguments):
    """Words of a command.  The suite that this machine prefers is none here,
    and its settings are read after those of APT_CONFIG."""
    return [program, "-q", "-o", "APT::Default-Release=", *arguments]


def run(command, environment, folder=None):
    """Run a fetching command; its output goes to stderr."""
    if subprocess.run(command, stdout=sys.stderr, env=environment, cwd=folder,
                      check=False).returncode:
        raise BaseError(f"`{' '.join(command)}` failed: is there a network, and"
                        " has the mirror what it lists?")


def with_lists(fetch, suite=SUITE, architecture=None):
    """Call @fetch with apt's environment; once more, with fresh lists, if
    those that are there are too old for it."""
    try:
        fetch(apt_environment(False, suite, architecture))
    except BaseError:
        fetch(apt_environment(True, suite, architecture))


def apt_get(arguments, folder, architecture=None):
    """Run apt-get in @folder."""
    command = apt_command("apt-get", *arguments)
    with_lists(lambda environment: run(command, environment, folder),
               architecture=architecture)


def query(arguments, environment):
    """What apt-cache says."""
    return subprocess.run(apt_command("apt-cache", *arguments),
                          env=environment, stdout=subprocess.PIPE, text=True,
                          check=False).stdout


@contextlib.contextmanager
def unpacking(path):
    """A new folder that becomes @path when all went well."""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as folder:
        os.chmod(folder, 0o755)
        new = os.path.join(folder, "new")
        os.mkdir(new)
        yield new
        os.rename(new, path)


def download_debs(names, folder, architecture=None):
    """Fetch Debian 13's packages into @folder; returns their paths."""
    say(f"fetching {' '.join(names)}")
    apt_get(["download", *names], folder, architecture=architecture)
    return glob.glob(f"{folder}/*.deb")


def fetch_debs(path, names, architecture=None):
    """Unpack Debian 13's packages into a new folder @path; returns it."""
    with locked("apt"):
        if not os.path.isdir(path):
            with unpacking(path) as folder:
                for deb in download_debs(names, os.path.dirname(folder),
                                         architecture):
                    subprocess.run(["dpkg-deb", "-x", deb, folder], check=True)
    return path


def fetch_deb(name):
    """Unpack Debian 13's package @name; returns the folder."""
    return fetch_debs(cache("packages", name), [name])


def fetch_asset(name):
    """Keep Debian 13's package @name as QEMU's tests keep what they fetch.

    Returns: the folder that QEMU_TEST_CACHE_DIR is to name.
    """
    known = cache("assets", name)
    with locked("apt"):
        if not os.path.islink(known):
            folder = cache("assets", "download", "")
            with tempfile.TemporaryDirectory(dir=folder) as new:
                deb, = download_debs([name], new)
                with open(deb, "rb") as file:
                    key = hashlib.file_digest(file, "sha256").hexdigest()
                os.rename(deb, f"{folder}/{key}")
            os.symlink(f"download/{key}", known)
    return cache("assets", "")


def dependency(name, prefix):
    """Name of the package with @prefix that the meta package @name needs."""
    with locked("apt"):
        text = query(["depends", name], apt_environment())
    match = re.search(rf"Depends: ({re.escape(prefix)}\S+)", text)
    if not match:
        raise BaseError(f"Debian 13 has no package {prefix}* for {name};"
                        f" remove {cache('apt', '')} to look again")
    return match[1]


def chosen():
    """The release of QEMU to build on."""
    release = os.environ.get("QEMU_BASE") or DEFAULT
    if release not in BASES:
        raise BaseError(f"QEMU_BASE={release}: known are {', '.join(BASES)}")
    return release


def build_folder(repo):
    """Where that release, or the tree that was given, is built."""
    given = os.environ.get("QEMU_SRC")
    if given:
        return f"{repo}/build-{version_of_tree(given)}"
    release = chosen()
    return f"{repo}/build" + ("" if release == DEFAULT else f"-{release}")


def newest_source(environment, release):
    """Version of the newest QEMU of that @release that the suite has."""
    text = query(["showsrc", "qemu"], environment)
    versions = [v for v in re.findall(r"^Version: (\S+)", text, re.M)
                if re.match(rf"(?:\d+:)?{re.escape(release)}\.", v)]
    if not versions:
        raise BaseError(f"Debian's suite {BASES[release]} offers no source of"
                        f" QEMU {release}.x")
    return max(versions, key=lambda v: [int(n) for n in re.findall(r"\d+", v)])


def fetch_source(release, folder):
    """Fetch Debian's source of that @release; returns its path."""
    def fetch(environment):
        version = newest_source(environment, release)
        say(f"fetching the source of QEMU {version} (40 MB)")
        run(apt_command("apt-get", "source", f"qemu={version}"), environment,
            temporary)

    check_disk(folder, "set XDG_CACHE_HOME")
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        with_lists(fetch, BASES[release])
        tree, = glob.glob(f"{temporary}/qemu-*/")
        path = os.path.join(folder, os.path.basename(tree.rstrip("/")))
        os.rename(tree, path)
    return path


def fetched_source(release):
    """Path of Debian's source of that @release.

    It is fetched once and kept: a suite may have another release tomorrow.
    """
    folder = os.path.dirname(cache(
        "source" if release == DEFAULT else f"source-{release}", ""))
    with locked("apt"):
        for tree in glob.glob(f"{folder}/qemu-*/"):
            return tree.rstrip("/")
        try:
            return fetch_source(release, folder)
        except BaseError as error:
            raise BaseError(
                f"QEMU {release} cannot be had: {error}; set QEMU_SRC=<a source"
                f" tree of QEMU {release}>, or copy one to {folder}"
            ) from None


def is_fetched(tree):
    """Is @tree one that we fetched, which nobody changes?"""
    return tree.startswith(os.path.dirname(cache("", "")))


def version_of_tree(path):
    """The version of QEMU in the tree that the user gave."""
    try:
        return read(os.path.join(path, "VERSION")).strip()
    except OSError:
        raise BaseError(f"QEMU_SRC={path} is no source tree of QEMU: it has no"
                        " file VERSION") from None


def given_source(path):
    """Check the tree that the user gave."""
    version = version_of_tree(path)
    if not SUPPORTED.match(version):
        raise BaseError(f"QEMU_SRC={path} is QEMU {version}; this project"
                        " needs 10.0, 10.2 or 11.1")
    return os.path.abspath(path)


def source():
    """Path of the pristine QEMU tree to build on."""
    given = os.environ.get("QEMU_SRC")
    return given_source(given) if given else fetched_source(chosen())


def meson_folder():
    """Folder of a Meson that runs from where it is, whatever PYTHONPATH is."""
    folder = fetch_deb("meson") + "/usr/bin"
    with contextlib.suppress(FileExistsError):
        os.symlink("../lib/python3/dist-packages/mesonbuild",
                   f"{folder}/mesonbuild")
    return folder


def build_environment():
    """Environment with the build tools that Debian 12 lacks, and ccache."""
    packages = "/usr/lib/python3/dist-packages"
    return dict(
        os.environ, CCACHE_DIR=cache("ccache", ""), CCACHE_NOHASHDIR="1",
        # The compiler says what a file includes: no preprocessor runs for that
        CCACHE_DEPEND="1",
        CCACHE_MAXSIZE="3G", PATH=f"{meson_folder()}:{os.environ['PATH']}",
        PYTHONPATH=(fetch_deb("meson") + packages + ":" +
                    fetch_deb("python3-pycotap") + packages))


def processors():
    """How many may be used: a container's share may be less than are there."""
    count = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        quota, period = map(int, read(QUOTA).split())
        count = min(count, max(1, quota // period))
    return count


def missing_packages(lists):
    if not shutil.which("dpkg-query"):
        raise BaseError("there is no dpkg-query: run this on Debian 12 or 13,"
                        " whose packages it installs")
    wanted = [line for name in lists
              for line in read(f"{REPO}/tools/{name}.txt").splitlines()
              if line and not line.startswith("#")]
    listing = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\\n"],
        stdout=subprocess.PIPE, text=True, check=True).stdout
    installed = {line.split()[0] for line in listing.splitlines()
                 if line.endswith(" installed")}
    return [name for name in wanted if name not in installed]


@told("base")
def main():
    if sys.argv[1:2] == ["packages"]:
        more = [f"packages-{name}" for name in sys.argv[2:]]
        print(" ".join(missing_packages(["packages", *more])))
    elif sys.argv[1:] == ["processors"]:
        print(processors())
    elif sys.argv[1:] == ["fetch"]:
        path = source()
        build_environment()
        print(path)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
