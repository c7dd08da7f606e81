/**
 * What property tests of device models and programs on Upcall import: generators, a machine without a vCPU, guest
 * programs as data, and traces that can be compared.
 *
 * Every module is a deep import too (`upcall/testing/TestMachine`).
 *
 * @since 0.1.0
 */
export * as Arbitraries from "./Arbitraries.ts"
export * as DyingClients from "./DyingClients.ts"
export * as Explorer from "./Explorer.ts"
export * as FaultyGate from "./FaultyGate.ts"
export * as FaultyUpcalls from "./FaultyUpcalls.ts"
export * as Generator from "./Generator.ts"
export * as GuestProgram from "./GuestProgram.ts"
export * as GuestRun from "./GuestRun.ts"
export * as HostilePage from "./HostilePage.ts"
export * as HypercallSequence from "./HypercallSequence.ts"
export * as Law from "./Law.ts"
export * as SlotHistory from "./SlotHistory.ts"
export * as TestMachine from "./TestMachine.ts"
export * as Trace from "./Trace.ts"
