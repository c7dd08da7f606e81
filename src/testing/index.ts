/**
 * What property tests of device models and programs on Upcall import: generators, a machine without a vCPU, guest
 * programs as data, and traces that can be compared.
 *
 * Every module is a deep import too (`upcall/testing/TestMachine`).
 *
 * @since 0.1.0
 */
export * as Arbitraries from "./Arbitraries.ts"
export * as Generator from "./Generator.ts"
export * as GuestProgram from "./GuestProgram.ts"
export * as GuestRun from "./GuestRun.ts"
export * as TestMachine from "./TestMachine.ts"
export * as Trace from "./Trace.ts"
