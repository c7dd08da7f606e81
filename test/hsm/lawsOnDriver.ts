/**
 * What each law comes to on the real driver: `Whole`, or `Part` and `Skipped` with the reason. Lines are those of
 * `drivers/virt/acrn` in Debian's linux-source-6.1 6.1.192-2.
 */
export interface OnDriver {
  readonly law: number
  readonly tried: "Whole" | "Part" | "Skipped"
  readonly why?: string
  readonly lines?: ReadonlyArray<string>
}

const whole = (law: number): OnDriver => ({ law, tried: "Whole" })
const limited = (tried: "Part" | "Skipped") => (law: number, why: string, lines: ReadonlyArray<string>): OnDriver => ({
  law,
  tried,
  why,
  lines
})
const part = limited("Part")
const skipped = limited("Skipped")

export const lawsOnDriver: ReadonlyArray<OnDriver> = [
  part(1, "guests only; the driver moves slots to PROCESSING and COMPLETE, we must move none", [
    "ioreq.c:47",
    "ioreq.c:533"
  ]),
  part(2, "guests only, and completion_polling keeps its value: the driver reads it again at completion", [
    "ioreq.c:45"
  ]),
  skipped(3, "the driver, not we, completes: a second NOTIFY is taken too, and stores COMPLETE again", [
    "ioreq.c:47",
    "ioreq.c:93"
  ]),
  whole(4),
  part(5, "VM beside VM; pages by hand are the driver's, and START runs one vCPU", ["ioreq.c:508"]),
  skipped(6, "the driver reads the slot before us; garbage in it is the driver's to check, and it does not", [
    "ioreq.c:508",
    "ioreq.c:514"
  ]),
  whole(7),
  whole(8),
  whole(9),
  skipped(10, "ACRN has no resume, and so the driver has no request for it", ["hsm.c:165"]),
  part(11, "guests only, without PCI: the driver keeps PCI's address register over a reset", [
    "hsm.c:172",
    "ioreq.c:321"
  ]),
  part(12, "no upcall is lost: whether the driver or we have still to look is not in the slot", ["ioreq.c:508"]),
  whole(13),
  whole(14),
  skipped(15, "the kind of completion is the driver's business: it notifies, or does not", ["ioreq.c:63"]),
  whole(16),
  skipped(17, "CREATE_VM makes SET_IOREQ_BUFFER too, one page for each VM; see the differential", [
    "vm.c:43",
    "ioreq.c:620"
  ]),
  skipped(18, "RAM is unmapped with its VM only", ["mm.c:352"]),
  whole(19)
]
