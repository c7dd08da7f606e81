/**
 * Where the core keeps the CPU's state: byte addresses in its own memory.
 *
 * Facts: `src/rust/cpu/global_pointers.rs` of v86 at the pinned version. They are not an interface of v86 and have
 * moved between builds; `WasmBytes.ts` makes sure that it is this build.
 *
 * @since 0.1.0
 */

/**
 * Byte addresses. An array's items lie one after the other.
 *
 * @category constants
 * @since 0.1.0
 */
export const CpuOffsets = {
  /** 8 words: EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI. */
  generalRegisters: 64,
  /** Word; which of the arithmetic flags in `flags` are stale and follow from the last result. */
  flagsChanged: 100,
  /** Word. */
  flags: 120,
  /** 8 bytes, by segment: the access byte of the descriptor (type, S, DPL, P). */
  segmentAccess: 512,
  /** Word: the linear address of the next instruction, so with the base of CS. */
  instructionPointer: 556,
  /** Word: the linear address of the current instruction. */
  previousInstructionPointer: 560,
  idtLimit: 564,
  idtBase: 568,
  gdtLimit: 572,
  gdtBase: 576,
  /** 8 words: CR0 to CR7. */
  controlRegisters: 580,
  /** Byte: current privilege level. */
  privilegeLevel: 612,
  /** Byte: 1 after HLT. */
  halted: 616,
  /** Word, which wraps: instructions begun, not counting those of the block that runs. */
  instructionCounter: 664,
  /** 8 half words, by segment. */
  segmentSelectors: 668,
  /** 8 bytes, by segment: 1 when the segment cannot be used. */
  segmentIsNull: 724,
  /** 8 words, by segment. */
  segmentBases: 736,
  /** 8 words, by segment: the highest offset. */
  segmentLimits: 768,
  /** Byte: CR0.PE, kept twice. */
  protectedMode: 800,
  /** Byte: code is 32-bit (the D flag of CS). */
  codeIs32: 804,
  /** Byte: the stack is 32-bit (the B flag of SS). */
  stackIs32: 808,
  /** Word: bytes of RAM. */
  memorySize: 812,
  /** 4 double words: the page directory pointers that a write of CR3 loads under PAE. */
  pageDirectoryPointers: 968,
  /** Byte: the task segment is a 32-bit one. */
  taskIs32: 1128
} as const

/**
 * The core's order of segment registers.
 *
 * @category constants
 * @since 0.1.0
 */
export const SegmentIndex = { es: 0, cs: 1, ss: 2, ds: 3, fs: 4, gs: 5, tr: 6, ldtr: 7 } as const

/**
 * The size of the table of functions: the core's own, then the compiled code's.
 *
 * Facts: `WASM_TABLE_OFFSET` in `src/rust/cpu/cpu.rs` and `WASM_TABLE_SIZE` (900) in `src/rust/jit.rs`.
 *
 * @category constants
 * @since 0.1.0
 */
export const FunctionTable = { compiledCode: 1024, size: 1024 + 900 } as const

/**
 * Guest instructions after which the core calls its timer hook (`LOOP_COUNTER` in `src/rust/cpu/cpu.rs`). A block that
 * has begun is finished first, which at most doubles it.
 *
 * @category constants
 * @since 0.1.0
 */
export const BATCH_INSTRUCTIONS = 100_003
