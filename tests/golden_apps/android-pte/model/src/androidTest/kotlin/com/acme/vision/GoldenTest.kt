// Written by edgeopt app; edgeopt app --update writes it anew.
package com.acme.vision

import androidx.test.ext.junit.runners.AndroidJUnit4
import androidx.test.platform.app.InstrumentationRegistry
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test
import org.junit.runner.RunWith

/** Replays the bundle's golden inputs on this device and holds the outputs to the bundle's tolerances. */
@RunWith(AndroidJUnit4::class)
public class GoldenTest {
    private val instrumentation = InstrumentationRegistry.getInstrumentation()
    private val golden = Golden { instrumentation.context.assets.open("edgeopt/tiny_net/golden/$it") }
    private lateinit var model: TinyNet

    @Before
    public fun load() {
        model = TinyNet.loadBlocking(instrumentation.targetContext)
    }

    @After
    public fun close() {
        model.close()
    }

    @Test
    public fun everyOutputIsWithinItsTolerance() {
        val agreements = ModelSpec.OUTPUTS.map { Agreement() }
        for (sample in golden.samples) {
            val outputs = run(sample)
            agreements[0].add(sample.outputs[0].data, outputs.logits)
            agreements[1].add(sample.outputs[1].data, outputs.mask)
        }
        for ((index, agreement) in agreements.withIndex()) {
            val tolerance = golden.tolerances.getValue(index)
            val reached = agreement.reached(tolerance)
            val name = ModelSpec.OUTPUTS[index].name
            assertTrue("$name: ${tolerance.kind} $reached, at least ${tolerance.least}", reached >= tolerance.least)
        }
    }

    @Test
    public fun aSecondRunGivesTheSame() {
        val (first, second) = run(golden.samples[0]) to run(golden.samples[0])
        assertEquals(first.logits.toList(), second.logits.toList())
        assertEquals(first.mask.toList(), second.mask.toList())
    }

    @Test
    public fun itRunsWhereItWasAskedTo() {
        assertNull(model.placement.fallback)
        assertEquals(ModelSpec.DEFAULT_THREADS, model.placement.threads)
    }

    private fun run(sample: GoldenSample): TinyNet.Outputs = model.run(
        sample.inputs[0].data as FloatArray,
    )
}
