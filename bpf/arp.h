/* SPDX-License-Identifier: GPL-2.0 */
/*
 * ARP, from which IPv4 learns MAC addresses (RFC 826).
 */
#ifndef XDPLB_ARP_H
#define XDPLB_ARP_H

#define ARP_HARDWARE_ETHERNET 1
#define ARP_REQUEST 1
#define ARP_REPLY 2

/* For IPv4 over Ethernet. */
struct arp_packet {
	__be16 hardware_type;
	__be16 protocol_type;
	u8 hardware_length;
	u8 protocol_length;
	__be16 operation;
	u8 sender_mac[6];
	u8 sender_address[4];
	u8 target_mac[6];
	u8 target_address[4];
};

/* Does @pkt tell of MAC addresses? */
static __always_inline bool neighbour_speaks(const struct packet *pkt)
{
	return pkt->eth->type == be16(ETHERTYPE_ARP);
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
	if (neighbour_is_sane(pkt, mac))
		neighbour_set(pkt, *(address *)arp->sender_address, mac, true);
}

#endif
