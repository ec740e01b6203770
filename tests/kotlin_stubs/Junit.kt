package org.junit

import org.junit.function.ThrowingRunnable

annotation class Test

annotation class Before

annotation class After

object Assert {
    @JvmStatic
    fun assertTrue(condition: Boolean) = assertTrue("not true", condition)

    @JvmStatic
    fun assertTrue(message: String, condition: Boolean) {
        if (!condition) throw AssertionError(message)
    }

    @JvmStatic
    fun assertNull(value: Any?) = assertTrue("$value is not null", value == null)

    @JvmStatic
    fun assertEquals(expected: Any?, actual: Any?) =
        assertTrue("expected $expected, found $actual", expected == actual)

    @JvmStatic
    fun assertEquals(expected: Float, actual: Float, delta: Float) =
        assertTrue("expected $expected, found $actual", Math.abs(expected - actual) <= delta)

    @JvmStatic
    fun <T : Throwable> assertThrows(expected: Class<T>, runnable: ThrowingRunnable): T {
        try {
            runnable.run()
        } catch (error: Throwable) {
            if (expected.isInstance(error)) return expected.cast(error)
            throw AssertionError("expected ${expected.simpleName}, found $error")
        }
        throw AssertionError("expected ${expected.simpleName}, nothing was thrown")
    }
}
