/** Cuts a stream of bytes into lines of text, whose last may lack its end. */
export class LineCutter {
  private readonly add: (line: string) => void
  private readonly decoder = new TextDecoder()
  private rest = ""

  constructor(add: (line: string) => void) {
    this.add = add
  }

  push(bytes: Uint8Array): void {
    const parts = (this.rest + this.decoder.decode(bytes, { stream: true })).split("\n")
    this.rest = parts.pop() ?? ""
    for (const part of parts) this.add(part.endsWith("\r") ? part.slice(0, -1) : part)
  }

  end(): void {
    if (this.rest !== "") this.add(this.rest)
    this.rest = ""
  }
}
