/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The MAC addresses of next hops. The kernel asks for them (managed neighbours,
 * set by Python); the answers pass here, so a backend that comes late or changes
 * its MAC address needs no process to notice. arp.h and ndp.h read them.
 */
#ifndef XDPLB_NEIGHBOUR_H
#define XDPLB_NEIGHBOUR_H

/*
 * Every backend behind @next_hop, by the interface and in the VLAN of @pkt, is reached at @mac. One
 * that is known already stays known where @overrides is false.
 */
static __always_inline void neighbour_set(struct packet *pkt, address next_hop, u64 mac,
					  bool overrides)
{
	u32 *head = next_hops.lookup(&next_hop);
	u64 vlan = tags_vlan(pkt->tags), keeps = !overrides, number;

	if (!head || !packet_interface(pkt))
		return;
	number = *head;
	/* The verifier follows all of a chain, once for each way here that it can tell apart. */
	forget(vlan, mac);
	if (FAMILY == 6) /* ARP always overrides */
		forget(keeps, mac);
#pragma clang loop unroll(disable)
	for (u32 step = 0; step < MAX_NEIGHBOURS && step < MAX_BACKENDS; step++) {
		u32 index = number;
		struct backend *backend = backends.lookup(&index);

		if (!backend)
			return;
		/* One condition of many, for the same reason; a MAC address has 48 bits. */
		if (!((backend->interface ^ pkt->interface) | backend->mac_is_fixed |
		      (tags_vlan(backend->tag) ^ vlan) | (keeps & -backend->mac >> 63)))
			backend->mac = mac;
		number = backend->next_neighbour;
	}
}

/* Is @mac one host's, and the one that sent the frame of @pkt? */
static __always_inline bool neighbour_is_sane(const struct packet *pkt, u64 mac)
{
	return mac && !(mac & 1) && mac == mac_word(pkt->eth->source);
}

#endif
