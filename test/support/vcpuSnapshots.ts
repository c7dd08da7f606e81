/** Snapshots of vCPUs of every kind, none of which any vCPU need ever have had. */
import { Struct } from "effect"
import { LEAST_XSAVE_BYTES, LOCAL_APIC_BYTES, VcpuSnapshot } from "../../src/domain/VcpuSnapshot.ts"
import * as Generator from "../../src/testing/Generator.ts"

const bytes = (length: number): Generator.Generator<Uint8Array> =>
  Generator.map(
    Generator.array(Generator.integer(0, 255), { minLength: 1, maxLength: 32 }),
    (pattern) => Uint8Array.from({ length }, (_, at) => pattern[at % pattern.length]!)
  )

const words = Generator.schema(VcpuSnapshot.mapFields(Struct.omit(["xsave", "localApic"])))

/** With an XSAVE area of this size. */
export const snapshots = (xsaveBytes = LEAST_XSAVE_BYTES): Generator.Generator<VcpuSnapshot> =>
  Generator.map(
    Generator.all([words, bytes(xsaveBytes), bytes(LOCAL_APIC_BYTES), Generator.boolean]),
    ([rest, xsave, localApic, hasLocalApic]) => ({ ...rest, xsave, ...(hasLocalApic ? { localApic } : {}) })
  )
