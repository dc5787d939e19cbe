/* SPDX-License-Identifier: GPL-2.0 */
/*
 * From a client to a backend: the one its flow has, or one chosen now.
 */
#ifndef XDPLB_REQUEST_H
#define XDPLB_REQUEST_H

/* What a flow needs to know of its way to the backend. */
struct path {
	struct backend *backend;
	u32 number;
	__be16 nat_port;
};

/* May a flow of @generation stay with @backend? */
static __always_inline bool backend_keeps(const struct backend *backend, u32 generation)
{
	return backend->generation == (u8)generation &&
	       (backend->state == BACKEND_UP || backend->state == BACKEND_DRAIN);
}

/*
 * Fill @path from the flow of @key, if there is one. An index entry that leads nowhere,
 * or to a backend that is gone, is removed.
 */
static __always_inline bool request_find(const struct packet *pkt, struct client_key *key,
					 struct path *path)
{
	struct client_value *value = client_port.lookup(key);

	if (!value)
		return false;
	path->number = value->backend;
	path->nat_port = value->nat_port;
	path->backend = backends.lookup(&path->number);
	if (path->backend && backend_keeps(path->backend, value->seen) &&
	    flow_refresh(pkt, key, value, path->backend))
		return true;
	client_port.delete(key);
	return false;
}

/* Does a socket of the host wait for @pkt? */
static __always_inline bool host_wants(const struct packet *pkt)
{
	struct bpf_sock_tuple tuple = {
		.ipv4.saddr = pkt->ip->source,
		.ipv4.daddr = pkt->ip->destination,
		.ipv4.sport = pkt->udp->source,
		.ipv4.dport = pkt->udp->destination,
	};
	struct bpf_sock *sock =
		bpf_sk_lookup_udp(pkt->ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);

	if (!sock)
		return false;
	bpf_sk_release(sock);
	return true;
}

/*
 * Is @source an address that an answer could be sent to? Not 0/8, loopback, multicast
 * and above (RFC 1122 3.2.1.3), nor the service itself.
 */
static __always_inline bool source_is_sane(__be32 source)
{
	u8 first = *(u8 *)&source;

	return first != 0 && first != 127 && first < 224 && source != (__be32)SERVICE_ADDRESS;
}

/* Choose a backend for the client of @pkt and open its flow. FORWARD, or a DROP. */
static __always_inline enum verdict request_open(const struct packet *pkt,
						 const struct client_key *key, struct path *path)
{
	if (!source_is_sane(pkt->ip->source))
		return DROP_MARTIAN;
	path->number = select_backend(pkt);
	path->backend = backends.lookup(&path->number);
	if (!path->backend || path->backend->state != BACKEND_UP)
		return DROP_NO_BACKEND;
	if (!path->backend->mac)
		return DROP_UNRESOLVED;
	return flow_open(pkt, key, path->backend, path->number, &path->nat_port);
}

/* FORWARD with the route to a backend, PASS if @pkt is not the service's, or a DROP. */
static __always_inline enum verdict request_backend(struct packet *pkt)
{
	struct client_key key = client_key(pkt, pkt->udp->destination);
	struct route *route = &pkt->route;
	struct path path = {};
	enum verdict verdict;
	bool is_known;

	if (!service_has_port(be16(pkt->udp->destination)))
		return PASS_NOT_OURS;
	is_known = request_find(pkt, &key, &path);
	if (HAVE_RESERVATIONS && !is_known) {
		struct client_key reserved = client_key(pkt, 0);

		is_known = request_find(pkt, &reserved, &path);
	}
	if (SERVICE_SHARES_PORTS && !is_known && host_wants(pkt))
		return PASS_SOCKET;
	verdict = packet_check(pkt);
	if (verdict != CONTINUE)
		return verdict;
	if (!is_known) {
		verdict = request_open(pkt, &key, &path);
		if (verdict != FORWARD)
			return verdict;
	}
	route->destination_mac = path.backend->mac;
	if (!route->destination_mac || !route_leave(pkt, path.backend->interface))
		return DROP_UNRESOLVED;
	route->destination = path.backend->address;
	route->source_port = path.nat_port;
	route->destination_port = path.backend->port ?: pkt->udp->destination;
	count_in(path.number, pkt->ip_length);
	return FORWARD;
}

#endif
