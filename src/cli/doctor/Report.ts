/**
 * The whole report: a section for each hypervisor that needs something of the machine, and which can be used.
 */
import * as Effect from "effect/Effect"
import * as Table from "../Table.ts"
import * as Acrn from "./acrn.ts"
import * as Capabilities from "./capabilities.ts"
import type { AcrnFacts, KvmFacts } from "./Facts.ts"
import * as Finding from "./Finding.ts"
import * as Kvm from "./kvm.ts"
import * as LookUp from "./lookUp.ts"

/** What the doctor can be asked about. */
export const SUBJECTS = ["kvm", "acrn"] as const

export type Subject = (typeof SUBJECTS)[number]

export interface Section {
  readonly name: string
  readonly findings: ReadonlyArray<Finding.Finding>
  /** More to read about, below the findings. */
  readonly table?: string
  readonly isReady: boolean
}

export const acrnSection = (facts: AcrnFacts): Section => {
  const findings = Acrn.diagnose(facts)
  return { name: "ACRN", findings, isReady: Acrn.isReady(findings) }
}

export const kvmSection = (facts: KvmFacts): Section => {
  const findings = Kvm.diagnose(facts)
  const extensions = facts.interface?.extensions
  const section = { name: "KVM", findings, isReady: Kvm.isReady(findings) }
  return extensions === undefined || extensions.size === 0
    ? section
    : { ...section, table: Capabilities.format(extensions) }
}

/** A section with its conclusion. */
export const format = ({ findings, isReady, name, table }: Section): string =>
  [
    Finding.format(findings),
    ...table === undefined ? [] : [table],
    isReady
      ? `VMs can run on ${name} here.`
      : `VMs cannot run on ${name} here; the other hypervisor layers need none of this.`
  ].join("\n\n")

const firstProblem = ({ findings }: Section): string =>
  findings.find(({ verdict }) => verdict === "missing")?.detail ??
    findings.find(({ verdict }) => verdict !== "ok")?.detail ?? ""

const limits = ({ findings }: Section): string =>
  findings.some(({ verdict }) => verdict === "limited") ? " (limited, see above)" : ""

/** Which hypervisors there are, which can be used, and which one `auto` is. */
export const formatSummary = (kvm: Section, acrn: Section): string => {
  const row = (name: string, section: Section, what: string) => [
    name,
    section.isReady ? "yes" : "no",
    section.isReady ? `${what}${limits(section)}` : firstProblem(section)
  ]
  return [
    Table.format(
      [
        { title: "hypervisor", align: "left" },
        { title: "usable", align: "left" },
        { title: "", align: "left" }
      ],
      [
        ["emulated", "yes", "32-bit x86 in WebAssembly; what `upcall run` uses unless told otherwise"],
        ["simulated", "yes", "a small subset of x86, for tests"],
        row("kvm", kvm, "the processor's own virtualization"),
        row("acrn", acrn, "for programs, through upcall/layers/Acrn")
      ]
    ),
    "",
    `\`--hypervisor auto\` is ${kvm.isReady ? "kvm" : "emulated"} here.`
  ].join("\n")
}

/** The report about one hypervisor, or about all, and whether what was asked for can be used. */
export const make = (subject: Subject | undefined): Effect.Effect<{
  readonly text: string
  readonly isReady: boolean
}> =>
  Effect.gen(function*() {
    const machine = yield* LookUp.machine
    const kvm = Effect.map(LookUp.kvm(machine), kvmSection)
    const acrn = Effect.map(LookUp.acrn(machine), acrnSection)
    switch (subject) {
      case "kvm":
        return yield* Effect.map(kvm, (section) => ({ text: format(section), isReady: section.isReady }))
      case "acrn":
        return yield* Effect.map(acrn, (section) => ({ text: format(section), isReady: section.isReady }))
      case undefined: {
        const sections = [yield* kvm, yield* acrn] as const
        const parts = sections.map((section) => `${section.name}\n\n${format(section)}`)
        // The emulator needs nothing but this process.
        return { text: [...parts, formatSummary(...sections)].join("\n\n\n"), isReady: true }
      }
    }
  })
