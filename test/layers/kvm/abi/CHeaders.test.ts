import { describeAgainstC } from "../../../support/cLayout.ts"
import { constants, structures } from "./exports.ts"

describeAgainstC("KVM's tables against C", {
  structures,
  constants,
  headers: ["<linux/kvm.h>"],
  folder: import.meta.dirname,
  // Names of Linux 6.1 and x86-64: headers without them are of another machine, or older than the tables.
  probe: [
    "#include <linux/kvm.h>",
    "#if !defined(__x86_64__) || !defined(KVM_CAP_DIRTY_LOG_RING_ACQ_REL)",
    "#error not the headers that the tables are of",
    "#endif",
    ""
  ].join("\n"),
  missing: "for x86-64 that finds <linux/kvm.h> of Linux 6.1 or later"
})
