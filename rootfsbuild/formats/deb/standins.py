"""What maintainer scripts see in place of the root's own programs while the root is made.

Each does, in a root that was empty, what the program it covers would do there, or hands its arguments on to that
program, which the sandbox keeps below COVERED. A path that is covered cannot be replaced by a script, which no first
installation does.
"""

from __future__ import annotations

from rootfsbuild.rootfs.mounts import COVERED

_NOTHING = (b"#!/bin/sh\nexit 0\n", 0o755)
_DSH = "/usr/bin/deb-systemd-helper"

POLICY = {"/usr/sbin/policy-rc.d": (b"#!/bin/sh\nexit 101\n", 0o755)}
"""invoke-rc.d asks it whether a service may start; 101 means no."""

# deb-systemd-helper(1p) is a Perl program that takes 25 ms to start and is started three times for every unit. This
# does what it does for one plain unit where there is no systemctl, and hands on everything else: units with Also,
# Alias or DefaultInstance, units that were masked or enabled before, every other action.
_ENABLE = f"""#!/bin/sh
set -f
units=/etc/systemd/system
state=/var/lib/systemd/deb-systemd-helper
hand_on() {{ exec {COVERED}{_DSH} "$@"; }}

[ -n "$DPKG_MAINTSCRIPT_PACKAGE" ] || hand_on "$@"
[ -z "$DPKG_ROOT$_DEB_SYSTEMD_HELPER_DEBUG$_DEB_SYSTEMD_HELPER_PURGE" ] || hand_on "$@"
case $#,$1 in
    2,[!-]*) action=$1 unit=$2 quiet= ;;
    3,--quiet) action=$2 unit=$3 quiet=yes ;;
    *) hand_on "$@" ;;
esac
case $unit in ''|-*|*/*) hand_on "$@" ;; esac
links=$state-enabled/$unit.dsh-also

case $action in
    unmask)
        for path in "$units/$unit" "$state-masked" /var/lib/systemd/deb-systemd-user-helper-masked; do
            [ ! -e "$path" ] && [ ! -L "$path" ] || hand_on "$@"
        done
        exit 0
        ;;
    was-enabled)
        answer=enabled
        if [ -f "$links" ]; then
            while read -r link || [ -n "$link" ]; do [ -L "$link" ] || answer=disabled; done <"$links"
        fi
        [ -n "$quiet" ] || echo "$answer" >&2
        [ "$answer" = enabled ]
        exit
        ;;
    debian-installed)
        [ -f "$links" ]
        exit
        ;;
    enable) ;;
    *) hand_on "$@" ;;
esac

[ ! -x /bin/systemctl ] && [ ! -x /usr/bin/systemctl ] && [ ! -e "$links" ] || hand_on "$@"
for file in "$units/$unit" "/lib/systemd/system/$unit" "/usr/lib/systemd/system/$unit" ''; do
    [ ! -f "$file" ] || break
done
[ -n "$file" ] || hand_on "$@"

wanted=
while read -r line || [ -n "$line" ]; do
    case $line in
        *[\\\\\\"\\']*) case $line in *[Bb][Yy]=*) hand_on "$@" ;; esac ;;
    esac
    case $line in
        WantedBy=[![:space:]]*) for name in ${{line#*=}}; do wanted="$wanted $name.wants"; done ;;
        RequiredBy=[![:space:]]*) for name in ${{line#*=}}; do wanted="$wanted $name.requires"; done ;;
        *[Ww][Aa][Nn][Tt][Ee][Dd][Bb][Yy]=*|*[Rr][Ee][Qq][Uu][Ii][Rr][Ee][Dd][Bb][Yy]=*) hand_on "$@" ;;
        *[Aa][Ll][Ss][Oo]=*|*[Aa][Ll][Ii][Aa][Ss]=*|*[Ii][Nn][Ss][Tt][Aa][Nn][Cc][Ee]=*) hand_on "$@" ;;
    esac
done <"$file"

seen=' '
for folder in $wanted; do
    case $seen in *" $folder "*) hand_on "$@" ;; esac
    case $folder in */*) hand_on "$@" ;; esac
    for path in "$state-enabled/$folder/$unit" "$units/$folder/$unit"; do
        [ ! -e "$path" ] && [ ! -L "$path" ] || hand_on "$@"
    done
    seen="$seen$folder "
done
for folder in $wanted; do
    mkdir -p "$state-enabled/$folder" "$units/$folder" || exit 1
    echo "$units/$folder/$unit" >>"$links" || exit 1
    ln -s "$file" "$units/$folder/$unit" || exit 1
    : >>"$state-enabled/$folder/$unit" || exit 1
done
exit 0
"""

STAND_INS = {
    **POLICY,
    # Scripts that start daemons by hand do it through this.
    "/usr/sbin/start-stop-daemon": _NOTHING,
    # Told that it is in a chroot, libc6's postinst does not ask an init that is not there to restart, and wait for it.
    "/usr/bin/ischroot": _NOTHING,
    # dpkg-maintscript-helper(1) mends what an older version left behind. In a root that was empty there is no older
    # version, so each of its actions ends without doing anything, after some fifteen processes.
    "/usr/bin/dpkg-maintscript-helper": _NOTHING,
    _DSH: (_ENABLE.encode(), 0o755),
}
"""Absolute path -> (content, mode)."""
