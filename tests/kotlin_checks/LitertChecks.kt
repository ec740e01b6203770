package edgeopt.checks

import android.content.Context
import android.graphics.Bitmap
import com.acme.picture.litert.Agreement
import com.acme.picture.litert.Delegate
import com.acme.picture.litert.ModelException
import com.acme.picture.litert.ModelSpec
import com.acme.picture.litert.TinyNet
import com.acme.picture.litert.Tolerance
import edgeopt.fake.FakeDevice
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlinx.coroutines.runBlocking
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

/** The wrapper of com.acme.picture.litert, on the fake runtime. */
class LitertChecks {
    private val context = Context()
    private val gpu = TinyNet.Options(threads = 3, delegate = Delegate.GPU)

    @Test
    fun aGpuThatWorksIsUsed() = TinyNet.loadBlocking(context, gpu).use { model ->
        assertEquals("GPU", model.placement.delegates)
        assertNull(model.placement.fallback)
    }

    @Test
    fun aGpuThatDoesNotIsReportedAndTheCpuRuns() {
        FakeDevice.gpuWorks = false
        TinyNet.loadBlocking(context, gpu).use { model ->
            assertEquals("XNNPACK", model.placement.delegates)
            assertTrue(model.placement.fallback!!.contains("no OpenCL"))
            assertEquals(3, FakeDevice.threads)
            assertTrue(FakeDevice.log.single().startsWith("W/edgeopt: the GPU can't run the model"))
        }
    }

    @Test
    fun aDamagedAssetIsRefused() {
        FakeDevice.replaced[ModelSpec.ASSET] = "not a model, really".toByteArray()
        val error = assertThrows(ModelException::class.java) { TinyNet.loadBlocking(context) }
        assertTrue(error.message!!, error.message!!.contains("is not the file that was exported: its SHA-256 is "))
    }

    @Test
    fun aMissingAssetIsNamed() {
        FakeDevice.assets = emptyList()
        val error = assertThrows(ModelException::class.java) { TinyNet.loadBlocking(context) }
        assertTrue(error.message!!, error.message!!.contains(ModelSpec.ASSET))
    }

    @Test
    fun loadingLeavesTheCallersThread() {
        runBlocking { TinyNet.load(context) }.close()
        assertTrue("loaded on the caller's thread", FakeDevice.loadThread !== Thread.currentThread())
    }

    @Test
    fun labelsGoWithTheScores() {
        FakeDevice.answersAnything = true
        TinyNet.loadBlocking(context).use { model ->
            val outputs = runBlocking { model.runAsync(FloatArray(3 * 8 * 8)) }
            val top = model.topClasses(outputs, 3)
            assertEquals(setOf("cat", "dog \"x\"", "bird"), top.map { it.label }.toSet())
            assertEquals(outputs.logits.sortedDescending(), top.map { it.score })
        }
    }

    @Test
    fun aPictureIsScaledAndNormalised() = TinyNet.loadBlocking(context).use { model ->
        val input = model.inputOf(Bitmap(640, 480, 0xff3366ff.toInt()))
        assertEquals(3 * 8 * 8, input.size)
        assertEquals((0x33 / 255f - 0.485f) / 0.229f, input.first(), 1e-5f)
        assertEquals((0x66 / 255f - 0.456f) / 0.224f, input[64], 1e-5f)
        assertEquals((1f - 0.406f) / 0.225f, input.last(), 1e-5f)
    }

    @Test
    fun aRuntimeThatFailsIsTold() = TinyNet.loadBlocking(context).use { model ->
        val error = assertThrows(ModelException::class.java) { model.run(FloatArray(192)) }
        assertTrue(error.message!!, error.message!!.startsWith("LiteRT can't run the model: these inputs"))
    }

    @Test
    fun aModelWithOtherTensorsIsClosedAgain() {
        FakeDevice.outputNames = listOf("something else")
        assertThrows(ModelException::class.java) { TinyNet.loadBlocking(context) }
        assertEquals(0, FakeDevice.openModels)
    }

    @Test
    fun agreementIsInDecibels() {
        val agreement = Agreement()
        agreement.add(floatArrayOf(3f, 4f), floatArrayOf(3f, 4.5f))
        assertEquals(20f, agreement.reached(Tolerance("snr_db", 0.0)).toFloat(), 1e-4f)
        assertEquals(0.5, agreement.reached(Tolerance("agreement", 0.0)))
        agreement.add(floatArrayOf(1f), floatArrayOf(Float.NaN))
        assertEquals(Double.NEGATIVE_INFINITY, agreement.reached(Tolerance("snr_db", 0.0)))
    }

    @Test
    fun aWrongSizeIsRefused() = TinyNet.loadBlocking(context).use { model ->
        val error = assertThrows(IllegalArgumentException::class.java) { model.run(FloatArray(3)) }
        assertEquals("image has 3 values, the model takes float32[1, 3, 8, 8]", error.message)
    }

    @Test
    fun aBufferOnTheHeapIsRefused() = TinyNet.loadBlocking(context).use { model ->
        val heap = ByteBuffer.allocate(4 * 192).order(ByteOrder.nativeOrder()).asFloatBuffer()
        assertThrows(IllegalArgumentException::class.java) { model.run(heap) }
        Unit
    }
}
