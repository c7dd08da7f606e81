/**
 * Names what a file seems to be when it is not what it was given as: the usual mistakes, told by their first bytes.
 */

export interface FileKind {
  readonly looksLike: string
  readonly advice: string
  /** Whether the advice is right whatever kind of image was wanted; else it is for who wants a bzImage. */
  readonly isForAll: boolean
}

const ascii = (text: string): ReadonlyArray<number> => Array.from(text, (character) => character.charCodeAt(0))

const unpackFirst = "unpack it first and give what is inside"

interface Rule extends FileKind {
  readonly offset: number
  readonly bytes: ReadonlyArray<number>
}

const rule = (bytes: ReadonlyArray<number>, looksLike: string, advice: string, offset = 0): Rule => ({
  offset,
  bytes,
  looksLike,
  advice,
  isForAll: false
})

const forAll = (bytes: ReadonlyArray<number>, looksLike: string, advice: string): Rule => ({
  ...rule(bytes, looksLike, advice),
  isForAll: true
})

// Numbers from each format's own description; the first rule that fits names the file.
const rules: ReadonlyArray<Rule> = [
  rule([0x7f, ...ascii("ELF")], "an ELF file", "give the bzImage (vmlinuz) that was built from it, not vmlinux itself"),
  forAll([0x1f, 0x8b], "gzip data", unpackFirst),
  forAll([0xfd, ...ascii("7zXZ"), 0x00], "xz data", unpackFirst),
  forAll([0x28, 0xb5, 0x2f, 0xfd], "Zstandard data", unpackFirst),
  forAll(ascii("BZh"), "bzip2 data", unpackFirst),
  forAll([0x04, 0x22, 0x4d, 0x18], "LZ4 data", unpackFirst),
  forAll(ascii("PK\x03\x04"), "a ZIP archive", unpackFirst),
  rule(ascii("!<arch>\n"), "an ar archive, such as a Debian package", "take boot/vmlinuz-* out of it"),
  rule(ascii("070701"), "a cpio archive", "that is an initrd: give it as initrd, and the bzImage as kernel"),
  rule(ascii("070702"), "a cpio archive", "that is an initrd: give it as initrd, and the bzImage as kernel"),
  rule([0x27, 0x05, 0x19, 0x56], "a U-Boot image", "give the bzImage of an x86 kernel"),
  rule(ascii("ARMd"), "a Linux kernel for 64-bit Arm", "give the bzImage of an x86 kernel", 0x38),
  rule(ascii("RISCV"), "a Linux kernel for RISC-V", "give the bzImage of an x86 kernel", 0x30),
  forAll(ascii("version https://git-lfs"), "a Git LFS pointer", "fetch the file it stands for (git lfs pull)"),
  forAll(ascii("<"), "an HTML or XML page", "the download went wrong: get the file again"),
  rule(ascii("MZ"), "an EFI or DOS program", "give the bzImage itself, not a program that holds it")
]

export const fileKind = (head: Uint8Array): FileKind | undefined =>
  rules.find(({ bytes, offset }) => bytes.every((byte, index) => head[offset + index] === byte))
