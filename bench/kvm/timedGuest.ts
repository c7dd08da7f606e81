/**
 * A guest that times its own reads of a port by the processor's time stamp counter, and tells the cycles of each sample
 * to the same port, lowest byte first. It is a Multiboot image and needs nothing of the machine: any VMM can run it.
 */
import { assemble, endless, IN, looped, movEdx, OUT, word } from "./assemble.ts"

/** Where the image is, and the address in it of the first instruction. */
export const ADDRESS = 0x10_0000
const HEADER_BYTES = 32
export const ENTRY = ADDRESS + HEADER_BYTES

/** Of Bochs' debug console: what is written is told to the host, and a read answers with the port's own number. */
export const SAMPLE_PORT = 0xe9
export const READS_PER_SAMPLE = 128
export const SAMPLE_BYTES = 4

// An image that says itself where it is to be loaded.
const MAGIC = 0x1bad_b002
const HAS_ADDRESSES = 1 << 16

const RDTSC = [0x0f, 0x31]

const code = endless(assemble(
  RDTSC, // into EDX:EAX
  [0x89, 0xc6], // MOV ESI,EAX
  movEdx(SAMPLE_PORT),
  [0xb9, ...word(READS_PER_SAMPLE)], // MOV ECX,READS_PER_SAMPLE
  looped(IN),
  RDTSC,
  [0x29, 0xf0], // SUB EAX,ESI: less than 2^32 cycles
  movEdx(SAMPLE_PORT),
  [0xb1, SAMPLE_BYTES], // MOV CL,SAMPLE_BYTES; the rest of ECX is 0
  looped(assemble(OUT, [0xc1, 0xe8, 8])) // SHR EAX,8
))

const end = ENTRY + code.length

/** The header and the code, for {@link ADDRESS}. */
export const image = Uint8Array.from(assemble(
  [MAGIC, HAS_ADDRESSES, -(MAGIC + HAS_ADDRESSES)].flatMap(word),
  // Where the header is, where the image begins and ends, where the memory to clear behind it ends, and the entry.
  [ADDRESS, ADDRESS, end, end, ENTRY].flatMap(word),
  code
))

/** Cycles a read, of whole samples. */
export const cyclesOf = (told: Uint8Array): ReadonlyArray<number> => {
  const words = new DataView(told.buffer, told.byteOffset, told.byteLength)
  return Array.from(
    { length: Math.floor(told.length / SAMPLE_BYTES) },
    (_, i) => words.getUint32(i * SAMPLE_BYTES, true) / READS_PER_SAMPLE
  )
}
