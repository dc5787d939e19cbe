#!/bin/bash
# Machines for the commands of a page: mounts, processes and networks of their own, of which nothing
# is left when this script ends. It reads lines "MACHINE COMMAND" and runs each there; behind what
# the command prints comes a line with its exit code.
#
#   client                router             on 192.0.2.0/24: balancer .1, other .2,
#   198.51.100.7  -----  .126  .254  -----   server .10 to .12, .20 and .21
#                         .129
#                           |
#                         far 198.51.100.130
#
# usage: unshare --mount --net --pid --fork --kill-child --mount-proc sandbox.sh XDPLB
set -eu
xdplb=$1

mount --make-rprivate /
mount -t tmpfs none /mnt
mkdir /mnt/netns /mnt/machines
mount -t tmpfs none /run
mkdir /run/netns

# Give the mount namespace that this runs in directories of its own.
furnish() {
	local place
	mount --rbind /run/netns /mnt/netns
	mount -t tmpfs none /run
	mkdir -p /run/netns /run/started /run/bird /run/exabgp /run/upper /run/work
	mount --rbind /mnt/netns /run/netns
	for place in /etc /usr/bin /usr/local /var/lib /var/log; do
		mkdir -p "/run/upper$place" "/run/work$place"
		mount -t overlay none "$place" \
			-o "lowerdir=$place,upperdir=/run/upper$place,workdir=/run/work$place"
	done
	ln -sf "$xdplb" /usr/local/bin/xdplb
	rm -f /usr/bin/systemctl
	printf '%s' "$SYSTEMCTL" >/usr/bin/systemctl
	printf '%s' "$SSH" >/usr/local/bin/ssh
	printf '%s' "$SCP" >/usr/local/bin/scp
	chmod +x /usr/bin/systemctl /usr/local/bin/ssh /usr/local/bin/scp
	ln -s "$(command -v python3-exabgpcli)" /usr/local/bin/exabgpcli
}

# What systemd does for the services of the page.
SYSTEMCTL='#!/bin/bash
for service; do :; done
pid=/run/started/$service
case $service in
bird) program="bird -f" ;;
keepalived) program="keepalived --dont-fork --log-console" ;;
exabgp)
	[ -e /run/exabgp/exabgp.in ] || mkfifo --mode=666 /run/exabgp/exabgp.in /run/exabgp/exabgp.out
	program="python3-exabgp /etc/exabgp/exabgp.conf" ;;
*) program=$(sed -n "/^ExecStart=/{s///;:a;p;/\\\\\$/!q;n;ba}" "/etc/systemd/system/$service.service") ;;
esac
if [ -e "$pid" ]; then
	kill "$(cat "$pid")"
	tail --pid="$(cat "$pid")" --follow /dev/null
	rm "$pid"
fi
[ "$1" = stop ] && exit
eval "exec $program" </dev/null >"$pid.log" 2>&1 &
echo $! >"$pid"
'
# No password, and no network between.
SSH='#!/bin/sh
while [ "$1" = -o ]; do shift 2; done
machine=$1
shift
exec nsenter --target "$(cat "/mnt/machines/$machine")" --net --mount sh -c "exec $*"
'
SCP='#!/bin/sh
[ "$1" = -p ] && [ $# = 3 ] || exit 2
exec cp -p "$2" "/proc/$(cat "/mnt/machines/${3%%:*}")/root${3#*:}"
'

# A port of the router's switch: INTERFACE MACHINE ADDRESS...
plug() {
	ip -n router link add "port-$2" type veth peer name "$1" netns "$2"
	ip -n router link set "port-$2" master switch up
	host "$@"
}

# What a machine has at its end of a cable.
host() {
	local interface=$1 machine=$2 address
	shift 2
	for address; do
		ip -n "$machine" address add "$address" dev "$interface"
	done
	ip -n "$machine" link set "$interface" up
}

export xdplb SYSTEMCTL SSH SCP
export -f furnish
mount --bind /mnt/netns /run/netns
machines="balancer router other server client far"
for name in $machines; do
	ip netns add "$name"
	ip -n "$name" link set lo up
done
for name in $machines; do
	read -r pid < <(
		exec nsenter --net="/run/netns/$name" unshare --mount \
			bash -ec 'furnish; echo $$; exec sleep infinity >/dev/null'
	)
	echo "$pid" >"/mnt/machines/$name"
done
ip -n router link add switch type bridge
host switch router 192.0.2.254/24
plug eth0 balancer 192.0.2.1/24
plug eth0 other 192.0.2.2/24
plug eth0 server 192.0.2.10/24 192.0.2.11/24 192.0.2.12/24 192.0.2.20/24 192.0.2.21/24
for end in client:198.51.100.7:198.51.100.126 far:198.51.100.130:198.51.100.129; do
	IFS=: read -r name address gateway <<<"$end"
	ip -n router link add "to-$name" type veth peer name eth0 netns "$name"
	host "to-$name" router "$gateway/25"
	host eth0 "$name" "$address/25"
	ip -n "$name" route add default via "$gateway"
done
for name in balancer other server; do
	ip -n "$name" route add default via 192.0.2.254
done
nsenter --net=/run/netns/router sysctl -qw net.ipv4.ip_forward=1 net.ipv4.fib_multipath_hash_policy=1
nsenter --target "$(cat /mnt/machines/router)" --mount sh -c 'mkdir /etc/bird; cat >/etc/bird/bird.conf' <<'END'
protocol device {
}

protocol kernel {
	merge paths on;
	ipv4 {
		export all;
	};
}

protocol bfd {
	interface "switch" {
		interval 300 ms;
		multiplier 3;
	};
}

template bgp balancer {
	local as 64500;
	passive;
	bfd on;
	error wait time 1, 1;
	ipv4 {
		import all;
		export none;
	};
}

protocol bgp lb1 from balancer {
	neighbor 192.0.2.1 as 64496;
}

protocol bgp lb2 from balancer {
	neighbor 192.0.2.2 as 64496;
}
END

# A name server at each address, which answers to the name "server" with its own.
for at in server:192.0.2.10 server:192.0.2.11 server:192.0.2.12 far:198.51.100.130; do
	nsenter --net="/run/netns/${at%:*}" dnsmasq --conf-file=/dev/null --no-resolv --no-hosts \
		--pid-file= --bind-interfaces "--listen-address=${at#*:}" --except-interface=lo \
		"--address=/server/${at#*:}"
done

# Two servers for syslog, with one file.
for address in 192.0.2.20 192.0.2.21; do
	nsenter --target "$(cat /mnt/machines/server)" --net --mount \
		socat -u "UDP-RECV:514,bind=$address" OPEN:/var/log/remote,creat,append &
done

set +e
while read -r machine command; do
	nsenter --target "$(cat "/mnt/machines/$machine")" --net --mount --wd=/run \
		bash -c "$command" </dev/null 2>&1
	printf '\n--- %s\n' $?
done
