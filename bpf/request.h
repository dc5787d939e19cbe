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

/* May flows stay with @backend? */
static __always_inline bool backend_keeps(const struct backend *backend)
{
	return backend->state == BACKEND_UP || backend->state == BACKEND_DRAIN;
}

/*
 * Is the flow of @key at its home, toward the backend that a new flow would get? Then
 * @path gets its port: no index is asked, and one cache line of the table is read.
 */
static __always_inline bool request_at_home(const struct packet *pkt, const struct client_key *key,
					    u32 hash, struct path *path)
{
	const struct backend *backend = path->backend;
	struct flow *flow = NULL;
	u64 owner = 0;
	u32 place;

	if (!backend || !backend_keeps(backend) || backend->slot_count < HOME_PLACES)
		return false;
	place = flow_home(backend, key->client, hash);
#pragma clang loop unroll(full)
	for (u32 step = 0; step < HOME_PLACES; step++, place++) {
		u32 index = backend->slot_first + place;

		flow = reverse_lookup.lookup(&index);
		if (!flow)
			return false;
		owner = flow->owner;
		if (flow_is_of(flow, key) && owner_is_flow(owner) &&
		    owner_is_toward(owner, backend, path->number))
			break;
		flow = NULL;
	}
	if (!flow || !flow_touch(pkt, flow, owner, true))
		return false;
	path->nat_port = nat_port(place);
	return true;
}

/*
 * The record that the index entry @value of @key leads to, with the way there in @path;
 * NULL where it is not that client's, or its backend's number has changed hands.
 */
static __always_inline struct flow *flow_indexed(const struct client_value *value,
						 const struct client_key *key, struct path *path)
{
	struct flow *flow;

	path->number = value->backend;
	path->nat_port = value->nat_port;
	path->backend = backends.lookup(&path->number);
	flow = path->backend ? flow_at(path->backend, path->nat_port) : NULL;
	if (!flow || !owner_is_toward(flow->owner, path->backend, path->number) ||
	    !flow_is_of(flow, key))
		return NULL;
	return flow;
}

/*
 * Fill @path from the index entry of @key, if there is one: the flow lies elsewhere than
 * at home, or goes to another backend than a new one would. An entry that leads nowhere,
 * or to a backend that is gone, is removed.
 */
static __always_inline bool request_indexed(const struct packet *pkt, struct client_key *key,
					    struct path *path)
{
	struct client_value *value = client_port.lookup(key);
	struct path found;
	struct flow *flow;
	u64 owner;

	if (!value)
		return false;
	flow = flow_indexed(value, key, &found);
	owner = flow ? flow->owner : 0;
	/* A record that is only claimed is being opened by another CPU, which wrote the entry. */
	if (flow && (backend_keeps(found.backend) || found.backend->state == BACKEND_HELD) &&
	    owner_state(owner) != FLOW_FREE && flow_touch(pkt, flow, owner, true)) {
		if (HAVE_RESERVATIONS && owner_state(owner) == FLOW_RESERVED)
			flow_set_service_port(flow, pkt->ports->destination);
		*path = found;
		return true;
	}
	if (flow && !backend_keeps(found.backend)) {
		/* Who has a reservation goes elsewhere meanwhile, and it waits. */
		if (HAVE_RESERVATIONS && owner_state(owner) == FLOW_RESERVED)
			return false;
		flow_leave(flow, owner);
	}
	client_port.delete(key);
	return false;
}

/* Does a socket of the host wait for @pkt? */
static __always_inline bool host_wants(const struct packet *pkt)
{
	/* As in struct bpf_sock_tuple, which has this shape for both families. */
	struct {
		address source;
		address destination;
		struct port_header ports;
	} tuple = { pkt->ip->source, pkt->ip->destination, *pkt->ports };
	u32 size = sizeof(address) * 2 + sizeof(struct port_header);
	struct bpf_sock *sock;

	if (packet_is_tcp(pkt))
		sock = bpf_sk_lookup_tcp(pkt->ctx, (void *)&tuple, size, BPF_F_CURRENT_NETNS, 0);
	else
		sock = bpf_sk_lookup_udp(pkt->ctx, (void *)&tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!sock)
		return false;
	bpf_sk_release(sock);
	return true;
}

/*
 * The tags of the way to @backend, by the route of @pkt: those of its VLAN where that is known.
 * Else a packet that stays on its interface stays in its VLAN, and one that goes to another
 * interface leaves without.
 */
static __always_inline u64 backend_tags(const struct packet *pkt, const struct backend *backend)
{
	if (!HAVE_VLAN)
		return 0;
	if (backend->tag || (INTERFACE_COUNT > 1 && pkt->route.interface != pkt->interface))
		return backend->tag;
	return pkt->tags;
}

/* Open the flow of @key, with @hash, by @path. FORWARD, or a DROP. */
static __always_inline enum verdict request_open(struct packet *pkt, struct client_key *key,
						 u32 hash, struct path *path)
{
	if (!source_is_sane(pkt->ip->source))
		return DROP_MARTIAN;
	if (!path->backend || path->backend->state != BACKEND_UP)
		return DROP_NO_BACKEND;
	if (!path->backend->mac)
		return DROP_UNRESOLVED;
	return flow_open(pkt, key, path->backend, path->number, hash, &path->nat_port);
}

/* Does @pkt, a segment of no known connection, open one? */
static __always_inline bool request_opens(const struct packet *pkt)
{
	struct tcp_header *tcp = packet_tcp(pkt);

	return tcp && tcp_opens(tcp->flags);
}

/* The number of the service that @pkt is for, which is noted in it; NO_SERVICE without one. */
static __always_inline u32 request_service(struct packet *pkt)
{
	u64 number = service_find(packet_local(pkt), packet_is_tcp(pkt), pkt->ports->destination);
	u64 noise = mac_word(pkt->eth->source);

	if (MANY_SERVICES)
		forget(number, noise);
	pkt->service = number;
	return number;
}

/* FORWARD with the route to a backend, PASS if @pkt is not the service's, or a DROP. */
static __always_inline enum verdict request_backend(struct packet *pkt)
{
	u32 number = request_service(pkt);
	struct client_key key = client_key(pkt, pkt->ports->destination);
	struct route *route = &pkt->route;
	struct path path = {};
	enum verdict verdict;
	u64 select_hash;
	bool is_known;
	u32 hash;

	if (number == NO_SERVICE)
		return PASS_NOT_OURS;
	select_hash = hash_packet(pkt, number);
	hash = hash_flow(pkt, select_hash);
	path.number = select_backend(number, select_hash);
	path.backend = backends.lookup(&path.number);
	is_known = request_at_home(pkt, &key, hash, &path) || request_indexed(pkt, &key, &path);
	if (HAVE_RESERVATIONS && !is_known) {
		struct client_key reserved = client_key(pkt, 0);

		is_known = request_indexed(pkt, &reserved, &path);
	}
	if (SERVICE_SHARES_PORTS && !is_known && host_wants(pkt))
		return PASS_SOCKET;
	if (packet_is_tcp(pkt) && !is_known && !request_opens(pkt))
		return PASS_NO_FLOW;
	verdict = packet_check(pkt);
	if (verdict != CONTINUE)
		return verdict;
	if (!is_known) {
		verdict = request_open(pkt, &key, hash, &path);
		if (verdict != FORWARD)
			return verdict;
		trace_opened();
	}
	if (path.backend->state == BACKEND_HELD)
		return DROP_NO_BACKEND;
	route->destination_mac = path.backend->mac;
	if (!route->destination_mac || !route_leave(pkt, path.backend->interface))
		return DROP_UNRESOLVED;
	if (!route_fits(pkt))
		return DROP_TOO_BIG;
	route->tags = backend_tags(pkt, path.backend);
	route->destination = path.backend->address;
	route->source_port = path.nat_port;
	route->backend = path.number;
	route->local = path.backend->local;
	route->destination_port = path.backend->port ?: pkt->ports->destination;
	count_in(path.number, pkt->ip_length);
	return FORWARD;
}

#endif
