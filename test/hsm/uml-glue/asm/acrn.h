/* SPDX-License-Identifier: GPL-2.0 */
/* The part of x86's <asm/acrn.h> that drivers/virt/acrn uses, for User-Mode Linux. */
#ifndef _ASM_UM_ACRN_H
#define _ASM_UM_ACRN_H

#include <linux/bits.h>
#include <linux/types.h>

#define ACRN_CPUID_FEATURES		0x40000001
#define ACRN_FEATURE_PRIVILEGED_VM	BIT(0)

void acrn_setup_intr_handler(void (*handler)(void));
void acrn_remove_intr_handler(void);

long uml_acrn_call(u64 id, u64 param1, u64 param2);

#define acrn_hypercall0(id)		uml_acrn_call((id), 0, 0)
#define acrn_hypercall1(id, p1)		uml_acrn_call((id), (p1), 0)
#define acrn_hypercall2(id, p1, p2)	uml_acrn_call((id), (p1), (p2))

/* The only leaf the driver reads; without sockets the driver has given up before. */
static inline u32 uml_acrn_cpuid(u32 leaf)
{
	return leaf == ACRN_CPUID_FEATURES ? ACRN_FEATURE_PRIVILEGED_VM : 0;
}
#define cpuid_eax(leaf)			uml_acrn_cpuid(leaf)

/* The attribute remove_cpu compiles, but is hidden: this kernel cannot unplug its one CPU. */
struct uml_acrn_cpu {
	u64 apicid;
};
#undef cpu_data
#define cpu_data(cpu)			((struct uml_acrn_cpu){ .apicid = (cpu) })

#endif
