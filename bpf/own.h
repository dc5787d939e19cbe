/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The balancer's own addresses: those that clients dial, and those that it speaks to backends
 * from. Mostly they are one and the same, a constant, and nothing here costs anything.
 */
#ifndef XDPLB_OWN_H
#define XDPLB_OWN_H

/* The number of @value among the balancer's addresses; NO_ADDRESS if it is none. */
static __always_inline u32 own_number(address value)
{
	if (!MANY_SERVICES) {
		address only = address_of(SERVICE_WORD_0, SERVICE_WORD_1);

		return address_is(value, only) ? 0 : NO_ADDRESS;
	}
#define ADDRESS(number, word_0, word_1)                    \
	if (address_is(value, address_of(word_0, word_1))) \
		return number;
	ADDRESSES(ADDRESS)
#undef ADDRESS
	return NO_ADDRESS;
}

/* The address with @number. */
static __always_inline address own_address(u32 number)
{
	address *found;

	if (!MANY_SERVICES)
		return address_of(SERVICE_WORD_0, SERVICE_WORD_1);
	found = addresses.lookup(&number);
	return found ? *found : address_of(0, 0);
}

/* The number of the address that clients of service number @service dial. */
static __always_inline u32 own_of_service(u32 service)
{
	struct service *found;

	if (!MANY_SERVICES)
		return 0;
	found = services.lookup(&service);
	return found ? found->local : 0;
}

/* Is @source an address that an answer could be sent to, and not the balancer's own? */
static __always_inline bool source_is_sane(address source)
{
	return address_is_sane(source) && own_number(source) == NO_ADDRESS;
}

#endif
