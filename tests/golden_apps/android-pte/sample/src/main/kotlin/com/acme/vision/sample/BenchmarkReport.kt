package com.acme.vision.sample

import com.acme.vision.TensorSpec
import java.util.Locale

/**
 * What one benchmark found, in the JSON of edgeopt's command-line runners, with `"where": "app"`.
 *
 * @property runsMs each timed run, in order: whoever reads them makes the statistics.
 * @property cpuFeatures what the kernel announces, named as edgeopt's runners name it.
 */
public class BenchmarkReport(
    public val runtime: String,
    public val runtimeVersion: String,
    public val model: String,
    public val inputs: List<TensorSpec>,
    public val outputs: List<TensorSpec>,
    public val threads: Int,
    public val delegates: String,
    public val fallback: String?,
    public val loadMs: Double,
    public val firstInferenceMs: Double,
    public val runsMs: List<Double>,
    public val peakMemoryKib: Long?,
    public val cpuFeatures: List<String>,
) {
    /** One line of JSON, in ASCII. What only the runners can tell is null or empty. */
    public fun toJson(): String = json(
        "runner" to "1",
        "where" to quoted("app"),
        "runtime" to quoted(runtime),
        "runtime_version" to quoted(runtimeVersion),
        "model_sha256" to quoted(model),
        "threads" to threads.toString(),
        "delegates" to quoted(delegates),
        "fallback" to (fallback?.let(::quoted) ?: "null"),
        "load_ms" to number(loadMs),
        "first_inference_ms" to number(firstInferenceMs),
        "runs_ms" to runsMs.joinToString(", ", "[", "]", transform = ::number),
        "peak_memory_kib" to (peakMemoryKib?.toString() ?: "null"),
        "planned_memory_bytes" to "null",
        "cpu_features" to cpuFeatures.joinToString(", ", "[", "]", transform = ::quoted),
        "uarch" to "null",
        "sections" to "[]",
        "inputs" to inputs.joinToString(", ", "[", "]", transform = ::tensor),
        "outputs" to outputs.joinToString(", ", "[", "]", transform = ::tensor),
        "profile" to "null",
    )

    /** Functions that need no report. */
    public companion object {
        // Android's log cuts what is longer than 4,068 bytes.
        private const val LOG_LINE = 3500

        // Linux's names of instruction set extensions, and edgeopt's.
        private val FEATURES = mapOf(
            "asimd" to "neon",
            "atomics" to "lse",
            "fphp" to "fphp",
            "asimdhp" to "fp16",
            "asimdrdm" to "rdm",
            "lrcpc" to "lrcpc",
            "asimddp" to "dotprod",
            "sve" to "sve",
            "asimdfhm" to "fp16fml",
            "sve2" to "sve2",
            "i8mm" to "i8mm",
            "bf16" to "bf16",
            "sme" to "sme",
        )

        /** The JSON of a benchmark that could not be made. */
        public fun failure(reason: String): String = json(
            "runner" to "1",
            "where" to quoted("app"),
            "error" to quoted(reason),
        )

        /** A report as lines for the log: `ID PART/PARTS TEXT`, the texts in order are the report. */
        public fun logLines(id: String, report: String): List<String> {
            val parts = report.chunked(LOG_LINE)
            return parts.mapIndexed { index, part -> "$id ${index + 1}/${parts.size} $part" }
        }

        /** The extensions that `/proc/cpuinfo` tells. */
        public fun featuresOf(cpuinfo: List<String>): List<String> {
            val line = cpuinfo.firstOrNull { it.startsWith("Features") }.orEmpty()
            val words = line.substringAfter(':').split(' ').toSet()
            return FEATURES.filterKeys { it in words }.values.toList()
        }

        private fun json(vararg entries: Pair<String, String>): String =
            entries.joinToString(", ", "{", "}") { (key, value) -> "\"$key\": $value" }

        private fun tensor(spec: TensorSpec): String = json(
            "file" to quoted(""),
            "name" to quoted(spec.name),
            "dtype" to quoted(spec.type.name.lowercase(Locale.ROOT)),
            "shape" to spec.shape().joinToString(", ", "[", "]"),
        )

        private fun number(value: Double): String = String.format(Locale.ROOT, "%.4f", value)

        private fun quoted(text: String): String = buildString {
            append('"')
            for (c in text) {
                when {
                    c == '"' || c == '\\' -> append('\\').append(c)
                    c < ' ' || c > '~' -> append(String.format(Locale.ROOT, "\\u%04x", c.code))
                    else -> append(c)
                }
            }
            append('"')
        }
    }
}
