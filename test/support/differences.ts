/** What two runs of one guest program differ in. */
import * as GuestRun from "../../src/testing/GuestRun.ts"
import * as Trace from "../../src/testing/Trace.ts"

const show = (entry: Trace.TraceEntry | undefined): string => entry === undefined ? "nothing" : Trace.format(entry)

/** Memory is compared byte by byte: a hypervisor may cut an access to it. */
export const differences = (a: GuestRun.GuestRun, b: GuestRun.GuestRun): Array<string> => {
  const [left, right] = [Trace.inBytes(a.trace.entries), Trace.inBytes(b.trace.entries)]
  const index = Trace.firstDifference(left, right)
  return [
    ...a.end._tag === "Halted" && b.end._tag === "Halted" ? [] : [`ends: ${a.end._tag}, ${b.end._tag}`],
    ...index === undefined ? [] : [`entry ${index}: ${show(left[index])}, ${show(right[index])}`],
    ...Buffer.compare(a.memory, b.memory) === 0 ? [] : ["memory"],
    ...Object.entries(a.registers.gprs).flatMap(([name, value]) =>
      b.registers.gprs[name as keyof typeof b.registers.gprs] === value ? [] : [name]
    )
  ]
}
