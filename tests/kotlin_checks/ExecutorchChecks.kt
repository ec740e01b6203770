package edgeopt.checks

import android.content.Context
import com.acme.picture.executorch.ModelException
import com.acme.picture.executorch.TinyNet
import com.acme.picture.executorch.sample.BenchmarkActivity
import com.acme.picture.executorch.sample.BenchmarkReport
import edgeopt.fake.FakeDevice
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

/** The wrapper and the sample of com.acme.picture.executorch, on the fake runtime. */
class ExecutorchChecks {
    private val context = Context()
    private val unpacked: List<File>
        get() = FakeDevice.files.walkTopDown().filter { it.isFile }.toList()

    @Test
    fun theModelIsUnpackedOnceAndMendedWhenDamaged() {
        TinyNet.loadBlocking(context).close()
        val file = unpacked.single()
        file.setLastModified(1_000_000)
        TinyNet.loadBlocking(context).close()
        assertEquals(1_000_000L, file.lastModified())
        val good = file.readText()
        file.writeText("not a model any more")
        TinyNet.loadBlocking(context).close()
        assertEquals(good, unpacked.single().readText())
    }

    @Test
    fun aDamagedAssetLeavesNothingBehind() {
        FakeDevice.replaced["edgeopt/tiny_net/model.pte"] = "not a model, really".toByteArray()
        assertThrows(ModelException::class.java) { TinyNet.loadBlocking(context) }
        assertEquals(emptyList<File>(), unpacked)
    }

    @Test
    fun whatAnOlderAppUnpackedIsRemoved() {
        val old = File(FakeDevice.files, "edgeopt/com.acme.picture.executorch/0123.pte")
        old.parentFile.mkdirs()
        old.writeText("an older model")
        TinyNet.loadBlocking(context).close()
        assertTrue("the old file is there still", !old.exists() && unpacked.size == 1)
    }

    @Test
    fun aRuntimeThatFailsIsTold() = TinyNet.loadBlocking(context).use { model ->
        val error = assertThrows(ModelException::class.java) { model.run(FloatArray(192)) }
        assertTrue(error.message!!, error.message!!.startsWith("ExecuTorch can't run the model: these inputs"))
    }

    @Test
    fun threadsReachTheRuntime() {
        TinyNet.loadBlocking(context, TinyNet.Options(threads = 2)).close()
        assertEquals(2, FakeDevice.threads)
    }

    @Test
    fun directBuffersGiveTheSame() = TinyNet.loadBlocking(context).use { model ->
        val golden = FakeDevice.open("edgeopt/tiny_net/golden/0.input.0.bin").use { it.readBytes() }
        val floats = ByteBuffer.wrap(golden).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
        val array = FloatArray(192).also { floats.get(it) }
        val direct = ByteBuffer.allocateDirect(4 * 192).order(ByteOrder.nativeOrder()).asFloatBuffer()
        direct.put(array)
        assertEquals(model.run(array).logits.toList(), model.run(direct).logits.toList())
    }

    @Test
    fun anOlderRuntimeIsRefused() {
        val error = assertThrows(com.acme.old.executorch.ModelException::class.java) {
            com.acme.old.executorch.TinyNet.loadBlocking(context)
        }
        assertTrue(error.message!!, error.message!!.contains("made for executorch 1.6.0 and the app is built with 1.5.1"))
    }

    @Test
    fun theSampleMeasures() {
        FakeDevice.answersAnything = true
        printed("report", runs = 20)
    }

    @Test
    fun aLongReportTakesSeveralLines() {
        FakeDevice.answersAnything = true
        printed("long", runs = 1000)
    }

    @Test
    fun theSampleTellsWhyItFailed() {
        FakeDevice.replaced["edgeopt/tiny_net/model.pte"] = "not a model, really".toByteArray()
        printed("failure", runs = 1)
    }

    @Test
    fun cpuFeaturesHaveTheRunnersNames() {
        val arm = listOf("processor\t: 0", "Features\t: fp asimd aes atomics fphp asimdhp asimddp bf16")
        assertEquals(listOf("neon", "lse", "fphp", "fp16", "dotprod", "bf16"), BenchmarkReport.featuresOf(arm))
        assertEquals(emptyList<String>(), BenchmarkReport.featuresOf(listOf("flags : sse2 asimd")))
    }

    /** The lines that the benchmark logs, for the Python side: `benchmark NAME LINE`. */
    private fun printed(name: String, runs: Int) {
        val activity = BenchmarkActivity()
        activity.intent.putExtra("id", "0a1b2c3d").putExtra("runs", runs).putExtra("threads", 2)
        activity.create()
        val end = System.nanoTime() + 20_000_000_000
        val last = Regex(".* (\\d+)/\\1 .*")
        while (FakeDevice.log.lastOrNull()?.let(last::matches) != true && System.nanoTime() < end) Thread.sleep(10)
        FakeDevice.log.toList().forEach { println("benchmark $name $it") }
    }
}
