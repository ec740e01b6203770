package com.acme.vision.sample

import android.app.Activity
import android.os.Bundle
import android.util.Log
import android.widget.TextView
import com.acme.vision.ModelException
import com.acme.vision.ModelSpec
import com.acme.vision.TinyNet
import java.io.File
import java.io.IOException
import java.util.Random
import kotlin.concurrent.thread

/**
 * Measures the model inside an app process and prints what it found, on the screen and in the log.
 *
 * Figures in an app differ from those in a shell: other cores, other clocks, a garbage collector beside.
 * edgeopt starts it and reads the log:
 *
 *     edgeopt bench BUNDLE --on adb --in-app --package com.acme.vision.sample
 *
 * By hand:
 *
 *     adb shell am start -S -W -n com.acme.vision.sample/.BenchmarkActivity --ei threads 2 --ei runs 100
 *     adb logcat -d -v raw -s edgeopt-bench
 */
public class BenchmarkActivity : Activity() {
    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        val view = TextView(this)
        view.setTextIsSelectable(true)
        // A dark screen means slow cores.
        view.keepScreenOn = true
        setContentView(view)
        val id = intent.getStringExtra("id") ?: "0"
        thread(name = "benchmark") {
            val found = try {
                measure().toJson()
            } catch (error: ModelException) {
                BenchmarkReport.failure(error.message.orEmpty())
            }
            BenchmarkReport.logLines(id, found).forEach { Log.i(TAG, it) }
            runOnUiThread { view.text = found }
        }
    }

    private fun measure(): BenchmarkReport {
        val warmup = intent.getIntExtra("warmup", 10)
        val runs = intent.getIntExtra("runs", 100).coerceIn(1, 1000)
        val threads = intent.getIntExtra("threads", ModelSpec.DEFAULT_THREADS)
        val inputs = Inputs(Random(0))
        val started = System.nanoTime()
        TinyNet.loadBlocking(this, TinyNet.Options(threads = threads)).use { model ->
            val loadMs = since(started)
            val times = List(1 + warmup + runs) {
                val begin = System.nanoTime()
                model.run(
                    inputs.image,
                )
                since(begin)
            }
            return BenchmarkReport(
                runtime = ModelSpec.RUNTIME,
                runtimeVersion = ModelSpec.RUNTIME_VERSION,
                model = ModelSpec.SHA256,
                inputs = ModelSpec.INPUTS,
                outputs = ModelSpec.OUTPUTS,
                threads = model.placement.threads,
                delegates = model.placement.delegates,
                fallback = model.placement.fallback,
                loadMs = loadMs,
                firstInferenceMs = times.first(),
                runsMs = times.takeLast(runs),
                peakMemoryKib = peakMemoryKib(),
                cpuFeatures = BenchmarkReport.featuresOf(lines("/proc/cpuinfo")),
            )
        }
    }

    /** Values for a benchmark: the cost of a network hardly depends on them. */
    private class Inputs(random: Random) {
        val image = FloatArray(192) { random.nextGaussian().toFloat() }
    }

    private fun since(nanos: Long): Double = (System.nanoTime() - nanos) / 1e6

    private fun peakMemoryKib(): Long? = lines("/proc/self/status")
        .firstOrNull { it.startsWith("VmHWM:") }
        ?.filter(Char::isDigit)
        ?.toLongOrNull()

    private fun lines(path: String): List<String> = try {
        File(path).readLines()
    } catch (_: IOException) {
        emptyList()
    }

    private companion object {
        const val TAG = "edgeopt-bench"
    }
}
