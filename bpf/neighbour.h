/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The MAC addresses of next hops. The kernel asks for them (managed neighbours,
 * set by Python); the answers pass here, so a backend that comes late or changes
 * its MAC address needs no process to notice.
 */
#ifndef XDPLB_NEIGHBOUR_H
#define XDPLB_NEIGHBOUR_H

#define ARP_HARDWARE_ETHERNET 1
#define ARP_REQUEST 1
#define ARP_REPLY 2

/* Every backend behind @next_hop on interface @ifindex is reached at @mac. */
static __always_inline void neighbour_set(__be32 next_hop, u32 ifindex, u64 mac)
{
	u32 *head = next_hops.lookup(&next_hop);
	u32 number;

	if (!head)
		return;
	number = *head;
#pragma clang loop unroll(disable)
	for (u32 step = 0; step < MAX_NEIGHBOURS && step < MAX_BACKENDS; step++) {
		struct backend *backend = backends.lookup(&number);

		if (!backend)
			return;
		if (backend->ifindex == ifindex && !backend->mac_is_fixed && backend->mac != mac)
			backend->mac = mac;
		number = backend->next_neighbour;
	}
}

/*
 * Learn from an ARP packet, request or answer alike, as RFC 826 asks of who already
 * knows the sender. The frame must come from the very MAC address it speaks of.
 */
static __always_inline void neighbour_learn(struct packet *pkt)
{
	struct arp_packet *arp = (void *)(pkt->eth + 1);
	u64 mac;

	if ((void *)(arp + 1) > (void *)(long)pkt->ctx->data_end)
		return;
	if (arp->hardware_type != be16(ARP_HARDWARE_ETHERNET) ||
	    arp->protocol_type != be16(ETHERTYPE_IPV4) || arp->hardware_length != 6 ||
	    arp->protocol_length != 4 ||
	    (arp->operation != be16(ARP_REQUEST) && arp->operation != be16(ARP_REPLY)))
		return;
	mac = mac_word(arp->sender_mac);
	if (!mac || arp->sender_mac[0] & 1 || mac != mac_word(pkt->eth->source))
		return;
	neighbour_set(*(__be32 *)arp->sender_address, pkt->ctx->ingress_ifindex, mac);
}

#endif
