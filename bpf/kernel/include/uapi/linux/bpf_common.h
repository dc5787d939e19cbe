/* SPDX-License-Identifier: GPL-2.0 */
/* BCC's copy of the bpf interface includes this for instruction codes, which C programs never name.
 */
