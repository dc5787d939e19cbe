/* SPDX-License-Identifier: GPL-2.0 */
/*
 * From a backend to the client: the NAT port that a datagram goes to says whose it is.
 */
#ifndef XDPLB_ANSWER_H
#define XDPLB_ANSWER_H

/*
 * The far end of a flow, as an answer names it: the backend's address and port, and the
 * port and the address of ours, by its number, that it speaks to.
 */
struct far_end {
	address address;
	__be16 port;
	__be16 nat_port;
	u8 local;
	u8 protocol;
};

/* Does an answer from @port of @backend belong to @flow? A reservation takes any service port. */
static __always_inline bool answer_port_fits(const struct backend *backend, const struct flow *flow,
					     __be16 port)
{
	if (backend->port)
		return backend->port == port;
	return flow->service_port == port ||
	       (HAVE_RESERVATIONS && owner_state(flow->owner) == FLOW_RESERVED);
}

/* Is @backend at the @end, whatever its port is? */
static __always_inline bool backend_is_at(const struct backend *backend, const struct far_end *end)
{
	bool is_tcp = end->protocol == PROTOCOL_TCP;

	return address_is(backend->address, end->address) &&
	       (!HAVE_TCP || !HAVE_UDP || (backend->service & 1) == is_tcp) &&
	       (!MANY_SERVICES || backend->local == end->local);
}

/* Fill @slots with the part of reverse_lookup that @end's address has; false without one. */
static __always_inline bool backend_slots(const struct far_end *end, struct slot_range *slots)
{
	u32 index = (address_word(end->address) * 0x9e3779b97f4a7c15ULL >> 48) +
		    (MANY_SERVICES ? end->local * LOCAL_STRIDE : 0);

#pragma clang loop unroll(disable)
	for (u32 step = 0; step < BUCKET_STEPS; step++, index++) {
		struct address_bucket *bucket;
		u32 number = index & (MAX_BACKENDS - 1);

		bucket = backend_ports.lookup(&number);
		if (!bucket)
			return false;
#pragma clang loop unroll(full)
		for (u32 place = 0; place < BUCKET_SIZE; place++) {
			if (address_is(bucket->address[place], end->address) &&
			    (!HAVE_TCP || !HAVE_UDP || bucket->protocol[place] == end->protocol) &&
			    (!MANY_SERVICES || bucket->local[place] == end->local)) {
				*slots = bucket->slots[place];
				return true;
			}
		}
		if (!bucket->continues)
			return false;
	}
	return false;
}

/*
 * The flow that @end is the far end of, with the backend's number in @number and the port
 * that the client dialled in @service_port; NULL if it is none's. Address, port and
 * protocol must all be the flow's (RFC 4787 REQ-8); anything else from a backend is a
 * client like any other.
 */
static __always_inline struct flow *answer_flow(const struct far_end *end, u32 *number,
						__be16 *service_port)
{
	struct slot_range slots;
	struct backend *backend;
	struct flow *flow;
	u32 offset;

	if (!nat_offset(be16(end->nat_port), &offset))
		return NULL;
	if (!backend_slots(end, &slots) || offset >= slots.count)
		return NULL;
	offset += slots.first;
	flow = reverse_lookup.lookup(&offset);
	if (!flow || !owner_is_flow(flow->owner))
		return NULL;
	*number = owner_backend(flow->owner);
	backend = backends.lookup(number);
	if (!backend || !owner_is_toward(flow->owner, backend, *number) ||
	    !backend_is_at(backend, end) || !answer_port_fits(backend, flow, end->port))
		return NULL;
	*service_port = backend->port ? flow->service_port : end->port;
	return flow;
}

/* RETURN with the route to the client, CONTINUE if @pkt is no answer, or a DROP. */
static __always_inline enum verdict answer_client(struct packet *pkt)
{
	struct far_end end = {
		.address = pkt->ip->source,
		.port = pkt->ports->source,
		.nat_port = pkt->ports->destination,
		.local = packet_local(pkt),
		.protocol = packet_protocol(pkt),
	};
	struct route *route = &pkt->route;
	enum verdict verdict;
	struct flow *flow;
	u32 number;

	trace_source(end.address, end.port);
	flow = answer_flow(&end, &number, &route->source_port);
	if (!flow)
		return CONTINUE;
	verdict = packet_check(pkt);
	if (verdict != CONTINUE)
		return verdict;
	route->destination_mac = mac_word(flow->client_mac);
	if (!route->destination_mac || !route_leave(pkt, flow->interface))
		return DROP_UNRESOLVED;
	if (!route_fits(pkt))
		return DROP_TOO_BIG;
	if (!flow_touch(pkt, flow, flow->owner, false))
		return CONTINUE;
	route->tags = HAVE_VLAN ? flow->tags : 0;
	route->destination = flow->client;
	route->destination_port = flow->client_port;
	route->backend = number;
	route->local = own_of_service(flow->service);
	count_out(number, pkt->ip_length);
	return RETURN;
}

#endif
