// Written by edgeopt app; edgeopt app --update writes it anew.
package com.acme.vision

import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

/** What can be checked without the runtime's native code. */
public class ModelSpecTest {
    @Test
    public fun theSpecHasTheInputsAndOutputsOfTheBundle() {
        assertEquals(1, ModelSpec.INPUTS.size)
        assertEquals(2, ModelSpec.OUTPUTS.size)
        assertEquals(64, ModelSpec.SHA256.length)
    }

    @Test
    public fun theVersionInUseLoadsTheModel() {
        RuntimeVersion.require(ModelSpec.RUNTIME_VERSION, ModelSpec.RUNTIME_VERSION)
        RuntimeVersion.require("2.10.0", "2.9.3")
    }

    @Test
    public fun anOlderOrAnotherMajorVersionIsRefused() {
        assertThrows(ModelException::class.java) { RuntimeVersion.require("2.9.3", "2.10.0") }
        assertThrows(ModelException::class.java) { RuntimeVersion.require("3.0.0", "2.10.0") }
    }

    @Test
    public fun noThreadsAreRefused() {
        assertThrows(IllegalArgumentException::class.java) { TinyNet.Options(threads = 0) }
        assertEquals(ModelSpec.DEFAULT_THREADS, TinyNet.Options().threads)
    }

    @Test
    public fun pixelsBecomePlanes() {
        val argb = IntArray(Pixels.WIDTH * Pixels.HEIGHT) { 0xff000000.toInt() }
        argb[1] = 0xffffffff.toInt()
        val input = Pixels.toInput(argb)
        assertEquals(192, input.size)
        val black0 = (0f - 0.485f) / 0.229f
        assertEquals(black0, input[0], 1e-5f)
        assertTrue(input[1] > black0)
        val black1 = (0f - 0.456f) / 0.224f
        assertEquals(black1, input[64], 1e-5f)
        assertTrue(input[65] > black1)
        val black2 = (0f - 0.406f) / 0.225f
        assertEquals(black2, input[128], 1e-5f)
        assertTrue(input[129] > black2)
    }

    @Test
    public fun tooFewPixelsAreRefused() {
        assertThrows(IllegalArgumentException::class.java) { Pixels.toInput(IntArray(1)) }
    }

    @Test
    public fun theHighestScoresComeFirst() {
        val scores = floatArrayOf(0.1f, 0.7f, 0.2f)
        val top = Labels.top(scores, listOf("a", "b", "c"), 2)
        assertEquals(listOf("b", "c"), top.map { it.label })
        assertEquals(listOf(1, 2), top.map { it.index })
    }
}
