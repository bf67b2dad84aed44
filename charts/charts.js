// The parts of ECharts that the pages draw with, in one bundle: `charts.init(element, theme, {renderer: 'svg'})`.
import { BarChart, HeatmapChart, LineChart, PieChart } from 'echarts/charts';
import { GridComponent, MarkLineComponent, TooltipComponent, VisualMapComponent } from 'echarts/components';
import { init, use } from 'echarts/core';
import { SVGRenderer } from 'echarts/renderers';

use([BarChart, HeatmapChart, LineChart, PieChart, GridComponent, MarkLineComponent, TooltipComponent, VisualMapComponent, SVGRenderer]);

export { init };
