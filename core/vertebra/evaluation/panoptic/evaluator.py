class PanopticEvaluator: pass
