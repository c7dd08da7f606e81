/**
 * The bug classes that others in this field met, each with what Upcall does instead. The single source: markers in src
 * (`// Guard: <id>`) name the code that keeps a class out, the test file of the same name shows it, and the table in
 * docs/protocol.md is made from this list.
 */

export interface BugClass {
  /** What a marker names, and what the test file's name begins with. */
  readonly id: string
  readonly title: string
  /** Where it happened. */
  readonly source: string
  /** What Upcall does instead. */
  readonly instead: string
  /** In this folder. */
  readonly test: string
}

export const bugClasses: ReadonlyArray<BugClass> = [
  {
    id: "cve-2018-10981",
    title: "The peer drives a request's state backwards",
    source: "CVE-2018-10981 (Xen XSA-262)",
    instead: "steps that nobody may take on a slot are reported and never obeyed, on both sides of the page",
    test: "cve-2018-10981-state-driven-backwards.test.ts"
  },
  {
    id: "xsa-155",
    title: "A shared field is read twice",
    source: "Xen XSA-155 (CVE-2015-8550), XSA-166, XSA-197 (CVE-2016-9381)",
    instead: "a request is copied once; its handling and its completion use the copy",
    test: "xsa-155-double-fetch.test.ts"
  },
  {
    id: "cve-2016-9637",
    title: "A 64-bit address indexes a table of 65,536 ports",
    source: "CVE-2016-9637 (Xen XSA-199)",
    instead: "both words of a port's number and its last byte are checked before it is one",
    test: "cve-2016-9637-port-beyond-the-table.test.ts"
  },
  {
    id: "cve-2019-14821",
    title: "An index is taken from shared memory as it is",
    source: "CVE-2019-14821 (Linux KVM)",
    instead: "a vCPU id that comes from outside is checked before a slot is looked at",
    test: "cve-2019-14821-unchecked-index.test.ts"
  },
  {
    id: "cve-2017-15591",
    title: "A range ends before it starts",
    source: "CVE-2017-15591 (Xen XSA-238)",
    instead: "a range is decoded again when it is registered, whatever its type says",
    test: "cve-2017-15591-range-ends-before-it-starts.test.ts"
  },
  {
    id: "xen-60a56dc006",
    title: "Routing ignores the direction of a string instruction",
    source: "Xen commit 60a56dc006",
    instead: "each element of a string is an access of its own, at its own address, in the order of the direction flag",
    test: "xen-60a56dc006-direction-ignored.test.ts"
  },
  {
    id: "xen-f7039ee41b",
    title: "A server dies with a request in flight",
    source: "Xen commit f7039ee41b",
    instead:
      "what a client holds when its scope closes is completed with all-ones, and the slot serves the next request",
    test: "xen-f7039ee41b-server-dies.test.ts"
  },
  {
    id: "xen-b7e0d89788",
    title: "A read with a side effect is made twice",
    source: "Xen commit b7e0d89788",
    instead: "an instruction that is executed again takes the answers it already has from a log",
    test: "xen-b7e0d89788-read-replayed.test.ts"
  },
  {
    id: "acrn-36f6a412b",
    title: "A vCPU id goes unchecked into a hypercall",
    source: "ACRN commit 36f6a412b",
    instead: "NOTIFY_REQUEST_FINISH and SET_VCPU_REGS refuse a vCPU that the VM has not",
    test: "acrn-36f6a412b-vcpu-id-unchecked.test.ts"
  },
  {
    id: "cve-2021-36145",
    title: "A range is freed while it is in the tree",
    source: "CVE-2021-36145 (ACRN device model)",
    instead:
      "ranges go with their client, a client that is gone gets none, and only a range that is there is taken out",
    test: "cve-2021-36145-range-outlives-its-client.test.ts"
  },
  {
    id: "cve-2021-36144",
    title: "A timer outlives its device",
    source: "CVE-2021-36144 (ACRN device model)",
    instead: "a client's fibers are ended before its scope is closed, and their timers are taken back",
    test: "cve-2021-36144-timer-outlives-its-device.test.ts"
  },
  {
    id: "acrn-611944c01",
    title: "A client is destroyed while it is being asked",
    source: "ACRN commits 611944c01 and 19fb5fa03",
    instead: "a client may be destroyed at any point, also from inside its own handler; its request is completed once",
    test: "acrn-611944c01-client-destroyed-while-asked.test.ts"
  },
  {
    id: "acrn-kernel-247",
    title: "One bad VM stops the scan for all",
    source: "ACRN kernel pull request 247",
    instead: "a page or a handler that fails is passed by, and the VMs after it are served",
    test: "acrn-kernel-247-one-bad-vm.test.ts"
  },
  {
    id: "no-client",
    title: "A request that no client owns hangs its vCPU",
    source: "ACRN issues 1121 and 8554",
    instead: "a read gives all-ones, a write is dropped, and an event names the nearest ranges",
    test: "no-client-hangs-the-vcpu.test.ts"
  },
  {
    id: "handler-error",
    title: "A handler's error makes a busy loop",
    source: "Linux `drivers/virt/acrn/ioreq.c` (`ioreq_task`)",
    instead: "a handler that fails, dies or throws has answered with all-ones, and is reported once",
    test: "handler-error-busy-loop.test.ts"
  },
  {
    id: "stray-completion",
    title: "A completion is taken from anybody, in any state",
    source: "Linux `drivers/virt/acrn/ioreq.c` (`acrn_ioreq_complete_request`)",
    instead: "a completion counts once, from PROCESSING, for the claim it was made for",
    test: "stray-completion.test.ts"
  },
  {
    id: "cve-2022-1651",
    title: "Memory leaks on the error path",
    source: "CVE-2022-1651 (Linux `drivers/virt/acrn/hsm.c`)",
    instead: "what could not be made wholly is unmade at once: RAM, a VM, a device",
    test: "cve-2022-1651-leak-on-the-error-path.test.ts"
  },
  {
    id: "cve-2024-38610",
    title: "The rights of a mapping are not checked",
    source: "CVE-2024-38610 (Linux `drivers/virt/acrn/mm.c`)",
    instead: "a page is mapped with the rights it was given, and only pages that are there",
    test: "cve-2024-38610-mapping-rights.test.ts"
  },
  {
    id: "destroy-order",
    title: "Resources go before the hypervisor has forgotten them",
    source: "Linux `drivers/virt/acrn/vm.c` (`acrn_vm_destroy`)",
    instead: "the VM is destroyed in the hypervisor first; its devices and its memory go after that",
    test: "destroy-order.test.ts"
  },
  {
    id: "cve-2026-5747",
    title: "What was validated at the start is changed later",
    source: "CVE-2026-5747 (Firecracker)",
    instead: "the request page is set while the VM is Created and at no other time; a range is kept as it was checked",
    test: "cve-2026-5747-changed-after-validation.test.ts"
  },
  {
    id: "qemu-556",
    title: "A device is entered again from inside itself",
    source: "QEMU issue 556",
    instead: "an upcall that comes inside another is served after it, and DMA reaches RAM only",
    test: "qemu-556-re-entrancy.test.ts"
  }
]
