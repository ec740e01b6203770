package android.widget

import android.content.Context

class TextView(val context: Context) {
    var text: CharSequence = ""

    fun setTextIsSelectable(selectable: Boolean) {
        check(selectable)
    }
}
