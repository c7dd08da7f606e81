// Prints one line, `N passed, N failed, N skipped`, from the file that vitest's JSON reporter wrote.
import { readFileSync } from "node:fs"

const report = JSON.parse(readFileSync(process.argv[2], "utf8"))
const count = (...states) =>
  report.testResults.flatMap((file) => file.assertionResults).filter((test) => states.includes(test.status)).length

// A file that does not load has no tests to fail, and an error outside every test belongs to none of them.
const broken = report.testResults.filter(
  (file) => file.status === "failed" && !file.assertionResults.some((test) => test.status === "failed")
).length
const failed = Math.max(count("failed") + broken, report.success ? 0 : 1)

process.stdout.write(
  `${count("passed")} passed, ${failed} failed, ${count("pending", "skipped", "todo", "disabled")} skipped\n`
)
