/* SPDX-License-Identifier: GPL-2.0 */
/* Included by BCC's helpers.h; nothing of it is used here. */
