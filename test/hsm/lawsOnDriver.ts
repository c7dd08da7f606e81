/**
 * What each law comes to on the real driver, as data; docs/acrn.md shows the same table. Lines are those of
 * `drivers/virt/acrn` in Debian's linux-source-6.1 6.1.192-2.
 */

/**
 * - `tried`: `Whole`; `Part` with what of it is tried; or `Skipped`.
 * - `why`: what stands against the rest, at the driver's `lines`.
 */
export type OnDriver =
  | { readonly law: number; readonly tried: "Whole" }
  | {
    readonly law: number
    readonly tried: "Part"
    readonly part: string
    readonly why: string
    readonly lines: ReadonlyArray<string>
  }
  | { readonly law: number; readonly tried: "Skipped"; readonly why: string; readonly lines: ReadonlyArray<string> }

const whole = (law: number): OnDriver => ({ law, tried: "Whole" })
const part = (law: number, of: string, why: string, lines: ReadonlyArray<string>): OnDriver => ({
  law,
  tried: "Part",
  part: of,
  why,
  lines
})
const skipped = (law: number, why: string, lines: ReadonlyArray<string>): OnDriver => ({
  law,
  tried: "Skipped",
  why,
  lines
})

export const lawsOnDriver: ReadonlyArray<OnDriver> = [
  part(
    1,
    "guests only",
    "the driver moves slots to PROCESSING and COMPLETE; we must move none, and touch none that is not PROCESSING",
    ["ioreq.c:47", "ioreq.c:533"]
  ),
  part(
    2,
    "guests only, `completion_polling` keeps its value",
    "the driver reads that word again when the request is completed",
    ["ioreq.c:45"]
  ),
  skipped(3, "the driver completes, not we; a second NOTIFY is taken too and stores COMPLETE again", [
    "ioreq.c:47",
    "ioreq.c:82"
  ]),
  whole(4),
  part(5, "VM beside VM only", "START runs one vCPU; a page filled by hand would be the driver's", ["ioreq.c:508"]),
  skipped(6, "the driver reads the slot before us, and checks nothing of it", ["ioreq.c:508", "ioreq.c:514"]),
  whole(7),
  whole(8),
  whole(9),
  skipped(10, "neither ACRN nor the driver has a resume: a paused VM can be reset or destroyed", [
    "hsm.c:165",
    "hsm.c:171",
    "hsm.c:177"
  ]),
  part(
    11,
    "guests only, no PCI",
    "the driver keeps PCI's address register over a reset (ACRN's own device model does not see 0xCF8 at all)",
    ["hsm.c:172", "ioreq.c:321"]
  ),
  part(
    12,
    "no upcall is lost",
    "that a request waits for the driver, or for us, cannot be told apart from outside",
    ["ioreq.c:508"]
  ),
  whole(13),
  whole(14),
  skipped(15, "the driver chooses between notified and polled completion", ["ioreq.c:63"]),
  whole(16),
  skipped(
    17,
    "CREATE_VM makes SET_IOREQ_BUFFER too, one page for each VM; [sequences are compared](#hypercall-sequences) instead",
    ["vm.c:43", "ioreq.c:620"]
  ),
  skipped(18, "RAM is unmapped with its VM only", ["mm.c:134", "mm.c:352"]),
  whole(19)
]
